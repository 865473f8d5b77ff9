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
from tests.emosym.console.hostile import HOSTILE, unsafe

CARD = "# A card\n" + HOSTILE + "\n[words](http://x/\x1b]8;;y)\n"


@pytest.fixture(scope="module")
def hostile(model, pictures, tmp_path_factory):
    """A folder with a hostile name: pictures, a broken one, generated ones, a bank of them."""
    folder = tmp_path_factory.mktemp("a") / HOSTILE
    (folder / "good").mkdir(parents=True)
    shutil.copy(pictures / "a.png", folder / "good" / f"{HOSTILE}.png")
    (folder / f"{HOSTILE}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + HOSTILE.encode())
    done = emosym(
        *("generate", "--prompt", HOSTILE, "--emotion", "awe", "--num-inference-steps", 2),
        *("--out", folder / "drawn" / f"{HOSTILE}.png", "--model", model),
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
    yield "understand", hostile / HOSTILE, "--model", model
    yield "understand", good, "--model", HOSTILE
    yield "understand", good, "--task", HOSTILE
    yield "understand", good, "--device", HOSTILE, "--model", model
    yield "generate", "--prompt", HOSTILE, "--out", hostile / "x", "--overwrite", *few
    yield "generate", "--emotion", HOSTILE, "--out", hostile / "x.png", *few
    yield "generate", "--prompt", HOSTILE, "--out", good / f"{HOSTILE}.png", *few
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
    yield "bank", "add", bank, hostile / f"{HOSTILE}.png", "--model", model
    yield "bank", "add", hostile / "nothing", hostile / HOSTILE
    yield "bank", "ls", bank
    yield "bank", "ls", bank, "--at", HOSTILE
    yield "bank", "ls", bank, "--emotion", HOSTILE
    yield "bank", "show", bank, 1
    yield "bank", "show", bank, 2
    yield "bank", "show", bank, 9
    yield "bank", "search", bank, HOSTILE
    yield "bank", "search", bank, next(good.iterdir()), "--model", model
    yield "bank", "search", bank, hostile / f"{HOSTILE}.png", "--model", model
    yield "bank", "stats", bank
    yield "bank", "log", bank
    yield "bank", "diff", bank, HOSTILE
    yield "bank", "tag", bank, HOSTILE
    yield "bank", "tag", bank
    yield "bank", "rollback", bank, HOSTILE
    yield "bank", "verify", bank
    yield "bank", "verify", hostile / HOSTILE
    yield "bank", "export", bank, hostile / f"{HOSTILE}.gif"
    yield "bank", "import", hostile / "nothing", hostile / HOSTILE
    yield "bank", "init", good
    yield "data", "import", HOSTILE, good, hostile / "d"
    yield "data", "import", "oasis", good, hostile / "d"
    yield "data", "validate", hostile / f"{HOSTILE}.png"
    yield "data", "validate", hostile / HOSTILE
    yield "data", "stats", good
    yield "zoo", "show", HOSTILE
    yield "zoo", "show", hostile
    yield "zoo", "compose", hostile / "m", "--backbone", hostile / HOSTILE
    yield "zoo", "space", HOSTILE, "--data", hostile
    yield ("zoo", "list")
    yield HOSTILE, HOSTILE
    yield "understand", f"--{HOSTILE}"


def test_no_command_passes_a_control_character_on(hostile, model):
    codes = []
    for arguments in commands(hostile, model):
        for extra in ((), ("--json",)):
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
    assert printable(HOSTILE)[:20] in re.sub(r"\s", "", shown.out)
    record = emosym("bank", "show", hostile / "bank", 2, "--json").json
    record = record[0] if isinstance(record, list) else record
    assert HOSTILE.strip() in (record["prompt"], record.get("entry", {}).get("prompt"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("bank", "ls"),
        ("bank", "show"),
        ("bank", "search"),
        ("understand",),
        ("generate",),
    ],
)
def test_on_a_terminal(hostile, model, arguments):
    """Both streams of a process of its own are a terminal, with colours and progress bars."""
    rest = {
        ("bank", "ls"): [hostile / "bank"],
        ("bank", "show"): [hostile / "bank", 2],
        ("bank", "search"): [hostile / "bank", HOSTILE],
        ("understand",): [hostile / "good", "--model", model],
        ("generate",): ["--prompt", HOSTILE, "--out", hostile / HOSTILE, "--model", model],
    }[arguments]
    code = "from emosym.cli import main; main()"
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, (*arguments, *rest))],
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
    preset = tmp_path / f"{HOSTILE}.yaml"
    preset.write_text(json.dumps({HOSTILE: HOSTILE, "model": HOSTILE}), encoding="utf-8")
    for module, *arguments in (
        ("train", "run", preset, "--run", hostile / "run"),
        ("train", "run", preset, f"{HOSTILE}=1", f"data.path={HOSTILE}"),
        ("train", "resume", hostile / HOSTILE),
        ("eval", "run", HOSTILE, hostile, "--out", hostile / "e"),
        ("eval", "compare", hostile / HOSTILE, hostile),
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
