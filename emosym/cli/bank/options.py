"""Arguments and options that several `emosym bank` commands share."""

from __future__ import annotations

from collections.abc import Sequence
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

OnlyEmotion = Annotated[str | None, typer.Option("--emotion", help="Only images of this emotion.")]
OnlySource = Annotated[Source | None, typer.Option("--source", help="Only images of this source.")]
MinScore = Annotated[
    list[str] | None,
    typer.Option(help="Only images with at least this score, e.g. confidence=0.8; may repeat."),
]
MaxScore = Annotated[
    list[str] | None,
    typer.Option(help="Only images with at most this score, e.g. contrast=0.2; may repeat."),
]
MinStep = Annotated[int | None, typer.Option(help="Only images of this training step or later.")]
MaxStep = Annotated[int | None, typer.Option(help="Only images of this training step or earlier.")]


def narrowed(
    emotion: str | None,
    source: Source | None,
    min_score: Sequence[str] | None,
    max_score: Sequence[str] | None,
    min_step: int | None,
    max_step: int | None,
) -> dict[str, object]:
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
