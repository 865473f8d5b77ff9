"""Arguments and options that several `emosym bank` commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from emosym.errors import UserError

Bank = Annotated[Path, typer.Argument(help="Folder of the memory bank.")]
Source = Literal["real", "synthetic"]
Wait = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for another writer to end.", metavar="SECONDS")
]
At = Annotated[str | None, typer.Option(help="Look at this version or tag; default: the newest.")]
Sheet = Annotated[
    Path | None, typer.Option(help="Also draw the images, side by side, into this new PNG.")
]

Only = dict[str, object]
"""Fields of `memory_bank.Filter`."""


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `narrowed`, in the place of its parameter `only`."""
    own = inspect.signature(command, eval_str=True).parameters
    options = inspect.signature(narrowed, eval_str=True).parameters

    @functools.wraps(command)
    def run(**given: object) -> None:
        only = narrowed(**{name: given.pop(name) for name in options})
        command(**given, only=only)

    run.__signature__ = inspect.Signature(
        [each for name in own for each in (options.values() if name == "only" else [own[name]])]
    )
    return run


def narrowed(
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
) -> Only:
    """Return the fields of `memory_bank.Filter` that options give; raise UserError for bad ones."""
    from memory_bank import Filter

    given = {
        "emotion": emotion,
        "source": source,
        "min_scores": _bounds("--min-score", min_score),
        "max_scores": _bounds("--max-score", max_score),
        "min_step": min_step,
        "max_step": max_step,
    }
    fields = {name: value for name, value in given.items() if value not in (None, {})}
    Filter(**fields)
    return fields


def _bounds(option: str, words: Sequence[str] | None) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for word in words or ():
        name, _, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            name = ""
        if not name or name in bounds:
            raise UserError(
                f"{option} says no bound" if not name else f"{option} bounds {name} twice",
                got=repr(word),
                expected="NAME=NUMBER, e.g. confidence=0.8",
            )
        bounds[name] = value
    return bounds
