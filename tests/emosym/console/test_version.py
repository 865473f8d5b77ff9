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


def test_evaluation_uses_the_device(tmp_path):
    """One that is not there is refused before a model is loaded."""
    from data_tools.affectworld.world import write_world
    from emosym.errors import UserError
    from eval.__main__ import app

    write_world(tmp_path / "world", 8, 0)
    run = ["run", "emosym-tiny", str(tmp_path / "world"), "--out", str(tmp_path / "out")]
    for command in (run, ["plane", "emosym-tiny"], ["refining", "emosym-tiny"]):
        done = CliRunner().invoke(app, [*command, "--device", "nowhere"])
        assert isinstance(done.exception, UserError), done.output
        assert str(done.exception).startswith("cannot use the device 'nowhere'; got ")
