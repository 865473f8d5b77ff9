"""The `emosym` command: it puts the installed folders together, and loads them only when used."""

from __future__ import annotations

import sys

import typer

from emosym.cli import bank, data, doctor, generate, understand, zoo
from emosym.errors import UserError

app = typer.Typer(
    help="Understand the emotion an image evokes, and generate images that evoke one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command()(understand.understand)
app.command()(generate.generate)
app.add_typer(bank.app, name="bank")
app.add_typer(data.app, name="data")
app.add_typer(zoo.app, name="zoo")
app.command()(doctor.doctor)


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    try:
        app(prog_name="emosym")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
