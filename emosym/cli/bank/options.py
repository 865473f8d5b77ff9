"""Arguments and options shared by the `emosym bank` commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from emosym.errors import UserError

Bank = Annotated[Path, typer.Argument(help="Folder of the memory bank.")]
Source = Literal["real", "synthetic"]
Wait = Annotated[
    float,
    typer.Option(min=0, help="Seconds to wait for another writer.", metavar="SECONDS"),
]
At = Annotated[str | None, typer.Option(help="Version or tag to read; default: the newest.")]
Sheet = Annotated[
    Path | None, typer.Option(help="Also write the images as a contact sheet to this new PNG.")
]

Filters = dict[str, Any]
"""Fields of `memory_bank.Filter`."""


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter `filters` by the options of `parse_filters`."""
    own = inspect.signature(command, eval_str=True).parameters
    options = inspect.signature(parse_filters, eval_str=True).parameters

    @functools.wraps(command)
    def run(**values: Any) -> None:
        filters = parse_filters(**{name: values.pop(name) for name in options})
        command(**values, filters=filters)

    parameters = [
        each for name in own for each in (options.values() if name == "filters" else [own[name]])
    ]
    # typer reads the signature of a command.
    setattr(run, "__signature__", inspect.Signature(parameters))  # noqa: B010
    return run


def parse_filters(
    emotion: Annotated[str | None, typer.Option(help="Only images of this emotion.")] = None,
    source: Annotated[Source | None, typer.Option(help="Only images of this source.")] = None,
    min_score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Only images with at least this score, e.g. confidence=0.8; may repeat.",
        ),
    ] = None,
    max_score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Only images with at most this score, e.g. contrast=0.2; may repeat.",
        ),
    ] = None,
    min_step: Annotated[
        int | None, typer.Option(help="Only images of this training step or later.")
    ] = None,
    max_step: Annotated[
        int | None, typer.Option(help="Only images of this training step or earlier.")
    ] = None,
) -> Filters:
    """Return the fields of `memory_bank.Filter` that are set; raise UserError for a bad value."""
    from memory_bank import Filter

    values = {
        "emotion": emotion,
        "source": source,
        "min_scores": _bounds("--min-score", min_score),
        "max_scores": _bounds("--max-score", max_score),
        "min_step": min_step,
        "max_step": max_step,
    }
    fields: Filters = {name: value for name, value in values.items() if value not in (None, {})}
    Filter(**fields)
    return fields


def _bounds(option: str, words: Sequence[str] | None) -> dict[str, float]:
    """Parse the values NAME=NUMBER of an option."""
    bounds: dict[str, float] = {}
    for word in words or ():
        name, _, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            name = ""
        if not name or name in bounds:
            raise UserError(
                f"{option} is not a bound" if not name else f"{option} bounds {name} twice",
                got=repr(word),
                expected="NAME=NUMBER, e.g. confidence=0.8",
            )
        bounds[name] = value
    return bounds
