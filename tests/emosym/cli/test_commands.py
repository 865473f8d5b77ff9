from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from configparser import ConfigParser

import pytest
import typer

from emosym.cli import app
from tests.emosym.cli.command import ROOT, Done, commands, emosym, refused, start


def test_the_commands_are_those_of_the_contract():
    assert {" ".join(path) for path in commands()} == {
        *("", "understand", "generate", "refine", "doctor", "bank", "data", "zoo"),
        *(
            "bank init",
            "bank add",
            "bank search",
            "bank ls",
            "bank show",
            "bank stats",
            "bank log",
            "bank diff",
            "bank tag",
            "bank rollback",
            "bank rm",
            "bank verify",
            "bank compact",
            "bank export",
            "bank import",
            "bank rebuild",
            "zoo list",
            "zoo show",
            "zoo compose",
            "zoo space",
        ),
        *("data import", "data world", "data validate", "data stats"),
    }


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_has_help_for_all_it_takes(path):
    done = emosym(*path, "--help")
    assert (done.code, done.err) == (0, "")
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    assert command.help
    shown = " ".join(done.out.replace("│", " ").split())
    for parameter in command.params:
        assert parameter.opts[-1] in shown or parameter.name in shown
        assert getattr(parameter, "help", None), parameter.name
    for name in getattr(command, "commands", {}):
        assert name in shown


def test_help_loads_no_library_of_the_model():
    code = (
        "import sys\nfrom emosym.cli import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code\n"
        "print('heavy', sorted({'torch', 'transformers', 'diffusers', 'faiss', 'numpy', 'PIL'}"
        " & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.endswith("heavy []\n")
    assert "understand" in done.stdout


def test_the_entry_point_is_this_command():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip() == "emosym = emosym.cli:main"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["understnd"], "No such command"),
        (["understand"], "Missing argument"),
        (["generate", "--prompt", "x"], "Missing option"),
        (["generate", "--out", "x.png", "--num-images-per-prompt", "0"], "--num-images-per-prompt"),
        (["generate", "--out", "x.png", "--valence", "high"], "--valence"),
        (["bank", "search", "b", "q", "--source", "drawn"], "synthetic"),
    ],
)
def test_wrong_usage_is_one_line(arguments, problem):
    refused(emosym(*arguments), problem, "; see `emosym")


@pytest.mark.parametrize("module", ["eval", "train", "model_zoo"])
def test_wrong_usage_of_the_other_command_lines_is_the_same_line(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--zzz"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"error: No such option: --zzz; see `python -m {module} --help`\n")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["understand", "a" * 300], f"{os.strerror(errno.ENAMETOOLONG)}: aaa"),
        (["generate", "--prompt", "x", "--out", f"{'a' * 300}/x.png"], "File name too long: aaa"),
        (["bank", "stats", "a" * 300], "not a memory bank: "),
        (["data", "validate", "a" * 300], "File name too long: aaa"),
        (["generate", "--prompt", "\udcff", "--out", "x.png"], r"not UTF-8 text; got '\udcff'"),
        (["understand", "x\udcff.png"], r"not UTF-8 text; got 'x\udcff.png'"),
        (["understand", ""], "an argument is empty; got '' after understand"),
        (["generate", "--prompt", "x", "--out", ""], "an argument is empty; got '' after --out"),
        (["generate", "--prompt", "x", "--out="], "an argument is empty; got --out= after x"),
        (["bank", "add", "bank", ""], "give it a value, or leave it out"),
    ],
)
def test_what_no_command_can_use_is_one_line(arguments, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(emosym(*arguments), problem)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["zoo", "list"], ["zoo", "list", "--json"], ["--help"]])
def test_a_full_device_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        running = start(*arguments, stdout=full)
        _, err = running.communicate(timeout=120)
    assert running.returncode == 2
    assert err.startswith(f"error: {os.strerror(errno.ENOSPC)}; ")
    assert err.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    running = start("zoo", "list", "--json")
    running.stdout.close()
    assert (running.stderr.read(), running.wait(timeout=120)) == ("", 1)


def test_ctrl_c_leaves_quietly_and_leaves_no_files(tmp_path):
    running = start("data", "world", tmp_path / "world", "--count", 1_000_000)
    end = time.monotonic() + 60
    while not any(tmp_path.glob(".world.*/image/*/*")) and time.monotonic() < end:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


def test_the_make_targets_speak_this_command(tmp_path, model, pictures, bank):
    def planned(*arguments: str) -> list[str]:
        plan = subprocess.run(
            ["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        (line,) = [line for line in plan.stdout.splitlines() if line.startswith("emosym ")]
        return shlex.split(line)[1:]

    world = tmp_path / "a world"
    assert emosym(*planned("world", f"DATA={world}", "COUNT=8", "SEED=3")).code == 0
    assert (world / "info.json").is_file()
    add = planned("bank-add", f"BANK={bank}", f"IMAGES={pictures}/a.png {pictures}/more")
    search = planned("bank-search", f"BANK={bank}", "QUERY=valence=1 arousal=0")
    for line in (add, search):
        assert line[-2:] == ["--model", "emosym-tiny"]
        assert emosym(*line[:-1], model).code == 0
    assert planned("doctor") == ["doctor"]


def test_the_package_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "emosym", "zoo", "show", "emosym-tini"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    refused(
        Done(done.returncode, done.stdout, done.stderr),
        "error: unknown model 'emosym-tini'; expected one of emosym-tiny",
    )
