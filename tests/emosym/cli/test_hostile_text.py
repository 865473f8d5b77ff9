"""Every command, given text that attacks a terminal: in prompts, names of files, tags, options."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys

import pytest

from emosym.errors import printable
from tests.emosym.cli.command import ROOT, emosym
from tests.emosym.console.hostile import HOSTILE, NAME, unsafe

PROMPT = "\x1b[2Ja\x9bb\u202e\r[/x]"
"""Short enough for the text encoder of the tiny model."""


@pytest.fixture(scope="module")
def hostile(model, pictures, tmp_path_factory):
    """A folder with a hostile name: pictures, a broken one, generated ones, a bank of them."""
    folder = tmp_path_factory.mktemp("a") / NAME
    (folder / "good").mkdir(parents=True)
    shutil.copy(pictures / "a.png", folder / "good" / f"{NAME}.png")
    (folder / f"{NAME}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + HOSTILE.encode())
    done = emosym(
        *("generate", "--prompt", PROMPT, "--emotion", "awe", "--num-inference-steps", 2),
        *("--out", folder / "drawn" / f"{NAME}.png", "--model", model),
    )
    assert done.code == 0, done.err
    for images in ("good", "drawn"):
        assert emosym("bank", "add", folder / "bank", folder / images, "--model", model).code == 0
    assert emosym("bank", "tag", folder / "bank", "t").code == 0
    return folder


def commands(hostile, model):
    """Yield command lines that succeed and that fail."""
    few = ("--num-inference-steps", 2, "--model", model)
    bank, good = hostile / "bank", hostile / "good"
    yield "understand", good, "--model", model
    yield "understand", good, "--task", "description", "--model", model
    yield "understand", hostile, "--model", model  # a broken image
    yield "understand", hostile / NAME, "--model", model
    yield "understand", good, "--model", HOSTILE
    yield "understand", good, "--task", HOSTILE
    yield "understand", good, "--device", HOSTILE, "--model", model
    yield "generate", "--prompt", HOSTILE, "--out", hostile / "x", "--overwrite", *few
    yield "generate", "--prompt", PROMPT, "--out", hostile / "x", "--overwrite", *few
    yield "generate", "--emotion", HOSTILE, "--out", hostile / "x.png", *few
    yield "generate", "--prompt", HOSTILE, "--out", good / f"{NAME}.png", *few
    yield "generate", "--blend", HOSTILE, "--out", hostile / "y.png", *few
    yield (
        "generate",
        "--prompt",
        HOSTILE,
        "--sweep",
        "valence",
        "--points",
        2,
        *few,
        "--out",
        (hostile / "sweep.png"),
        "--overwrite",
    )
    yield (
        "refine",
        "--prompt",
        HOSTILE,
        "--valence",
        1,
        "--arousal",
        1,
        "--rounds",
        2,
        *(("--num-images-per-prompt", 2, "--out", hostile / "refined", "--overwrite", *few)),
    )
    yield "bank", "add", bank, hostile / f"{NAME}.png", "--model", model
    yield "bank", "add", hostile / "nothing", hostile / NAME
    yield "bank", "ls", bank
    yield "bank", "ls", bank, "--at", HOSTILE
    yield "bank", "ls", bank, "--emotion", HOSTILE
    yield "bank", "show", bank, 1
    yield "bank", "show", bank, 2
    yield "bank", "show", bank, 9
    yield "bank", "search", bank, HOSTILE
    yield "bank", "search", bank, next(good.iterdir()), "--model", model
    yield "bank", "search", bank, hostile / f"{NAME}.png", "--model", model
    yield "bank", "stats", bank
    yield "bank", "log", bank
    yield "bank", "diff", bank, HOSTILE
    yield "bank", "tag", bank, HOSTILE
    yield "bank", "tag", bank
    yield "bank", "rollback", bank, HOSTILE
    yield "bank", "verify", bank
    yield "bank", "verify", hostile / NAME
    yield "bank", "export", bank, hostile / f"{NAME}.gif"
    yield "bank", "import", hostile / "nothing", hostile / NAME
    yield "bank", "init", good
    yield "data", "import", HOSTILE, good, hostile / "d"
    yield "data", "import", "oasis", good, hostile / "d"
    yield "data", "validate", hostile / f"{NAME}.png"
    yield "data", "validate", hostile / NAME
    yield "data", "stats", good
    yield "zoo", "show", HOSTILE
    yield "zoo", "show", hostile
    yield "zoo", "compose", hostile / "m", "--backbone", hostile / NAME
    yield "zoo", "space", HOSTILE, "--data", hostile
    yield ("zoo", "list")
    yield HOSTILE, HOSTILE
    yield "understand", f"--{HOSTILE}"


def test_no_command_passes_a_control_character_on(hostile, model):
    codes = []
    for arguments in commands(hostile, model):
        slow = {"generate", "refine"} & {*arguments[:1]}
        for extra in [()] if slow else [(), ("--json",)]:
            done = emosym(*arguments, *extra)
            assert not unsafe(done.out + done.err), arguments
            assert done.code in (0, 1, 2), arguments
            codes.append(done.code)
            if extra and done.code == 0:
                json.loads(done.out)
    assert codes.count(0) > 20
    assert codes.count(2) > 30


def test_the_text_itself_is_kept_and_shown_escaped(hostile, model):
    """In the bank as it was given; on the terminal as escapes."""
    shown = emosym("bank", "show", hostile / "bank", 2)
    assert printable(PROMPT.partition("\r")[0]) in re.sub(r"\s", "", shown.out)
    record = emosym("bank", "show", hostile / "bank", 2, "--json").json
    record = record[0] if isinstance(record, list) else record
    assert PROMPT in (record["prompt"], record.get("entry", {}).get("prompt"))


@pytest.mark.parametrize("command", ["show", "understand"])
def test_on_a_terminal(hostile, model, command):
    """Both streams of a process of its own are a terminal, with colours and progress bars."""
    arguments = {
        "show": ("bank", "show", hostile / "bank", 2),
        "understand": ("understand", hostile / "good", "--model", model),
    }[command]
    code = "from emosym.cli import main; main()"
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        stdout=terminal,
        stderr=terminal,
    ):
        os.close(terminal)
        shown = b""
        while chunk := _read(main):
            shown += chunk
    os.close(main)
    assert not unsafe(shown.decode())
    assert b"\\x1b" in shown


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the process has ended
        return b""


def test_the_commands_of_training_and_evaluation(hostile, model, tmp_path):
    preset = tmp_path / f"{NAME}.yaml"
    preset.write_text(json.dumps({HOSTILE: HOSTILE, "model": HOSTILE}), encoding="utf-8")
    for module, *arguments in (
        ("train", "run", preset, f"{HOSTILE}=1", f"data.path={HOSTILE}"),
        ("eval", "run", HOSTILE, hostile, "--out", hostile / "e"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        shown = (done.stdout + done.stderr).decode()
        assert done.returncode == 2, shown
        assert not unsafe(shown)
        assert "error: " in shown
