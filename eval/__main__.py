"""The command line of evaluation: `python -m eval run|plane|influence|refining|compare ...`."""

from __future__ import annotations

import typer

from emosym.console import guard
from emosym.console.options import Version
from eval.commands.attribute_reader import attribute_reader
from eval.commands.compare import compare
from eval.commands.influence import influence
from eval.commands.plane import plane
from eval.commands.refining import refining
from eval.commands.run import run
from eval.commands.subject_classifier import subject_classifier

app = typer.Typer(
    help="Score a model, and compare scores.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def evaluate(version: Version = False) -> None:
    """Score a model, and compare scores."""


app.command()(run)
app.command()(plane)
app.command()(influence)
app.command()(refining)
app.command()(compare)
app.command()(subject_classifier)
app.command()(attribute_reader)

if __name__ == "__main__":
    guard.run(app, "python -m eval")
