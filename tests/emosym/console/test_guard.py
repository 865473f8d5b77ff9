"""Old names of options: an error that names the new one, for every command that had it."""

from __future__ import annotations

import pytest
import typer

from emosym.cli import app
from emosym.console.guard import RENAMED
from tests.emosym.cli.command import commands, emosym, refused

OPTIONS = {
    "generate": {"--count", "--steps", "--guidance"},
    "refine": {"--steps", "--guidance"},
}


@pytest.mark.parametrize(
    ("command", "old"), [(name, old) for name, olds in OPTIONS.items() for old in sorted(olds)]
)
@pytest.mark.parametrize("joined", [True, False])
def test_an_old_option_is_refused_with_its_new_name(command, old, joined, tmp_path):
    value = [f"{old}=2"] if joined else [old, "2"]
    done = emosym(command, "--prompt", "x", *value, "--out", tmp_path / "x")
    refused(
        done,
        f"error: the option {old} was renamed to {RENAMED[old]}; see `emosym {command} --help`\n",
    )


def test_no_command_has_an_old_and_a_new_name():
    for path in commands():
        command = typer.main.get_command(app)
        for name in path:
            command = command.commands[name]
        options = {option for parameter in command.params for option in parameter.opts}
        old = {old for old, new in RENAMED.items() if new in options}
        assert old == OPTIONS.get(" ".join(path), set())
        assert not old & options


def test_an_option_that_a_command_never_had_is_just_unknown():
    refused(emosym("bank", "stats", "b", "--steps", "2"), "error: No such option: --steps")


def test_evaluation_refuses_old_options_too():
    from eval.__main__ import app as evaluation

    for name in ("plane", "refining"):
        command = typer.main.get_command(evaluation).commands[name]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--num-inference-steps", "--guidance-scale"} <= options
        assert not {"--steps", "--guidance"} & options
