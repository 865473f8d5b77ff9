"""Options that several commands share."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from emosym.errors import UserError
from emosym.plugins import load_plugin

MOST_IMAGES = 1_000_000
"""Upper limit of a number of images: a mistyped larger one would fill the memory or the disk."""
MOST_POINTS = 25
"""Upper limit of the points on an axis of a sweep: a plane holds its square in memory."""
LAST_SEED = 2**63 - 1 - MOST_IMAGES
"""Largest seed of a first image: the memory bank stores seeds as 64-bit integers."""
DEFAULT_MODEL = "emosym-tiny"


def _check_seed(seed: int) -> int:
    """Return a seed; raise BadParameter if it is out of range."""
    if not 0 <= seed <= LAST_SEED:
        raise typer.BadParameter(f"{seed} is not in the range 0 to {LAST_SEED}")
    return seed


def named_numbers(text: str, name: str, example: str) -> dict[str, float]:
    """Parse `awe=0.7,fear=0.3` and the like; raise UserError for anything else."""
    numbers: dict[str, float] = {}
    for part in text.split(","):
        key, _, value = (word.strip() for word in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            raise UserError(
                f"{name} cannot be parsed", got=repr(part), expected=f"{example} and the like"
            ) from None
        if key in numbers:
            raise UserError(f"{key} is twice in {name}")
        numbers[key] = number
    return numbers


def _guidance_scale(text: str) -> float | dict[str, float]:
    """Return a number, or one for each source that is named."""
    try:
        return float(text)
    except ValueError:
        return named_numbers(text, "the guidance scale", "2, or text=2,affect=3,state=2,")


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


def _print_version(wanted: bool) -> None:
    """Print the version and end the command, if `--version` is given."""
    if wanted:
        print(f"emosym {version('emosym')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]
"""The callback of a command line takes `version: Version = False`."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Model = Annotated[str, typer.Option(help="Name in the model zoo, or a model folder.")]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, cuda:1 ...; default: the GPU if there is one."),
]
Emotion = Annotated[str | None, typer.Option(help="One of Mikels' eight emotions, e.g. awe.")]
Valence = Annotated[
    float | None, typer.Option(help="From -3 (unpleasant) to 3 (pleasant); requires --arousal.")
]
Arousal = Annotated[float | None, typer.Option(help="From -3 (calm) to 3 (excited).")]
GuidanceScale = Annotated[
    Any,
    typer.Option(
        "--guidance-scale",
        parser=_guidance_scale,
        metavar="SCALE",
        help="Weight of classifier-free guidance, or one for each source, as"
        " text=2,affect=3,state=2; default: the model's.",
    ),
]
InferenceSteps = Annotated[
    int | None,
    typer.Option("--num-inference-steps", help="Sampling steps; default: the model's."),
]
# Without min and max: their digits would fill the help and cut the names of other options.
Seed = Annotated[int, typer.Option(callback=_check_seed, help="Seed of the first image.")]
