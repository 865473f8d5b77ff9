"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Model = Annotated[str, typer.Option(help="Name in the model zoo, or a model folder.")]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, cuda:1 ...; default: the GPU where there is one."),
]
Emotion = Annotated[str | None, typer.Option(help="One of Mikels' eight, e.g. awe.")]
Valence = Annotated[
    float | None, typer.Option(help="From -3 (unpleasant) to 3 (pleasant); with --arousal.")
]
Arousal = Annotated[float | None, typer.Option(help="From -3 (calm) to 3 (excited).")]

MOST_IMAGES = 1_000_000
"""A typing slip beyond it would fill the memory or the disk."""
MOST_POINTS = 25
"""Of a sweep, on an axis: its sheet is held in memory, and a plane has the square of it."""
LAST_SEED = 2**63 - 1 - MOST_IMAGES
"""SQLite, and so the memory bank, ends at 2^63."""
DEFAULT_MODEL = "emosym-tiny"
