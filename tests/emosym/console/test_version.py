"""`--version` of every command line."""

from __future__ import annotations

import importlib
from importlib.metadata import version

import pytest
from typer.testing import CliRunner


@pytest.mark.parametrize("module", ["emosym.cli", "train.__main__", "eval.__main__"])
def test_the_version(module):
    done = CliRunner().invoke(importlib.import_module(module).app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"emosym {version('emosym')}\n")


def test_evaluation_takes_a_device():
    import typer

    from eval.__main__ import app

    for name in ("run", "plane", "refining"):
        command = typer.main.get_command(app).commands[name]
        assert "--device" in {option for one in command.params for option in one.opts}
