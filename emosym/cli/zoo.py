"""`emosym zoo ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emosym.cli.options import AsJson
from emosym.cli.terminal import print_facts, print_json, print_table
from emosym.errors import UserError

app = typer.Typer(help="The models that come with this installation.", no_args_is_help=True)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the models by name."""
    from model_zoo.noise import hush

    hush()
    from model_zoo import zoo

    records = [
        {
            "name": name,
            "description": zoo.preset(name)["description"],
            "weights": _folder(name),
        }
        for name in zoo.members()
    ]
    if as_json:
        print_json(records)
        return
    print_table(
        ("name", "description", "weights"),
        [(r["name"], r["description"], r["weights"] or "not here: train them") for r in records],
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name of `emosym zoo list`.")],
    as_json: AsJson = False,
) -> None:
    """Show a model's architecture, its files and its model card."""
    from model_zoo.noise import hush

    hush()
    from model_zoo import zoo

    preset, folder = zoo.preset(name), _folder(name)
    files = zoo.model_files(Path(folder)) if folder else {}
    card = Path(folder, zoo.CARD) if folder else None
    text = card.read_text(encoding="utf-8") if card and card.is_file() else None
    if as_json:
        print_json(
            {"name": name, "preset": preset, "weights": folder, "files": files, "card": text}
        )
        return
    import yaml
    from rich.console import Console
    from rich.markdown import Markdown

    print(yaml.safe_dump({name: preset}, sort_keys=False), end="")
    print_facts(files or {"weights": "not here: train them"}, title=folder or "")
    if text is not None:
        Console().print(Markdown(text))


def _folder(name: str) -> str | None:
    """Return the folder of a member's weights; None where they are not installed."""
    from model_zoo import zoo

    try:
        return str(zoo.folder_of(name))
    except UserError:
        return None
