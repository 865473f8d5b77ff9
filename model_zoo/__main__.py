"""`python -m model_zoo`: make the files that the zoo ships (weights, cosines of definitions)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from emosym.console import guard
from emosym.errors import UserError
from emosym.files import write_text

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def zoo() -> None:
    """Make the files that the zoo ships."""
    from model_zoo.quiet import quiet_libraries

    quiet_libraries()


@app.command()
def install(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    command: Annotated[str, typer.Option(help="Command of the training, for the model card.")],
    name: Annotated[str, typer.Option(help="Member of the zoo.")] = "emosym-tiny",
) -> None:
    """Save the model of a run as the weights of a zoo member (float16), with a model card."""
    import torch

    from model_zoo import catalogue, zoo
    from model_zoo.card import card

    if not (run / "report.json").is_file():
        raise UserError(f"{run} is not a finished run", expected="a folder with report.json")
    catalogue.preset(name)
    model = zoo.load(run / "model")
    report = json.loads((run / "report.json").read_text())
    folder = zoo.save(model, catalogue.ROOT / "weights" / name, torch.float16)
    text = card(name, command, report, model, zoo.model_files(folder))
    write_text(folder / zoo.CARD, text)
    print(folder)


@app.command()
def definitions() -> None:
    """Encode the definitions of the emotion words and store the cosines between them."""
    from emosym.affect.definitions import STORED
    from model_zoo.text.definitions import encode_definitions

    write_text(STORED, encode_definitions())
    print(STORED)


if __name__ == "__main__":
    guard.run(app, "python -m model_zoo")
