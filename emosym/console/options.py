"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emosym.plugins import load_plugin


def _load_plugins(paths: list[Path] | None) -> list[Path]:
    """Load each plugin in the order given, before the command runs."""
    for path in paths or ():
        load_plugin(path)
    return list(paths or ())


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        callback=_load_plugins,
        is_eager=True,
        help="Python file that registers rewards, tasks, phases, datasets, gates or judges of your"
        " own. It is run. May be given more than once.",
    ),
]
"""A command that reads a registry takes `plugins: Plugins = None`; typer loads them."""

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
