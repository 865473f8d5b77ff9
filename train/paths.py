"""The paths that `python -m train` is given, checked before imports that take seconds."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from emosym.errors import UserError

CONFIG = "config.yaml"
LOCK = "run.lock"
PRESETS = Path(__file__).parent / "presets"


def check_start(preset: Path, run: Path, dataset: str | None) -> None:
    """Check what a new run is made from.

    Raises:
        UserError: no such preset, with the most similar one; no such dataset; a folder that is not
            empty.
    """
    if not os.path.lexists(preset):
        near = _similar_preset(preset)
        fix = f"did you mean {str(near)!r}?" if near else f"see the presets in {_shown(PRESETS)}"
        raise UserError(f"{preset}: no such configuration file", fix=fix)
    if dataset is not None and not Path(dataset).expanduser().exists():
        raise UserError(f"no dataset at {dataset}", expected="a folder or a manifest file")
    # A run that was killed at once has left its lock.
    if run.exists() and any(path.name != LOCK for path in run.iterdir()):
        raise UserError(
            f"{run} is not empty",
            expected="a new folder for the run",
            fix=f"continue it with `make resume RUN={run}`, or choose another RUN",
        )


def check_run(run: Path) -> None:
    """Raise UserError if a folder is not that of a run."""
    if not (run / CONFIG).is_file():
        raise UserError(
            f"{run} is not a run folder",
            got=f"no {CONFIG} in it",
            expected="RUN=<folder of a run>",
        )


def _similar_preset(wanted: Path) -> Path | None:
    """Return the preset, shipped or beside the wanted one, whose name is the most similar."""
    found = [*wanted.parent.glob("*.yaml"), *map(_shown, sorted(PRESETS.rglob("*.yaml")))]
    names = {path.stem: path for path in reversed(found)}  # one beside the wanted one comes first
    near = difflib.get_close_matches(wanted.stem, names, n=1)
    return names[near[0]] if near else None


def _shown(path: Path) -> Path:
    """Return a path from the working folder, where it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
