"""The `emosym` command, run and looked at."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import typer

from emosym.cli import app, main

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        assert self.code == 0, self.err
        return json.loads(self.out)


def emosym(*arguments: object) -> Done:
    """Run the command in this process, as its entry point would."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["emosym", *map(str, arguments)]
    with (
        patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as left:
            return Done(int(left.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("a command line ends with an exit code")


def start(*arguments: object, **options) -> subprocess.Popen:
    """Start the command in a process of its own."""
    code = "from emosym.cli import main; main()"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        # Started in the background, a shell ignores interrupts, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **{"env": env, "stdout": subprocess.PIPE, "text": True, **options},
    )


def commands(group=None, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    group = typer.main.get_command(app) if group is None else group
    found = [path]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    return found


def refused(done: Done, *parts: str) -> None:
    """Check that a command ended as every user error does."""
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for part in parts:
        assert part in done.err


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))
