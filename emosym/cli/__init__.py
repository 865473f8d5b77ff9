"""The `emosym` command. It combines the installed folders, and imports them when they are used."""

from __future__ import annotations

import typer

from emosym.cli import bank, data, doctor, generate, refine, understand, zoo
from emosym.console import guard
from emosym.console.options import Version

app = typer.Typer(
    help="Recognise the emotion that an image evokes, and generate images that evoke one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@app.callback()
def emosym(version: Version = False) -> None:
    """Understand and generate emotion."""


app.command()(understand.understand)
app.command()(generate.generate)
app.command()(refine.refine)
app.add_typer(bank.app, name="bank")
app.add_typer(data.app, name="data")
app.add_typer(zoo.app, name="zoo")
app.command()(doctor.doctor)


def main() -> None:
    """Run the command line."""
    guard.run(app, "emosym")
