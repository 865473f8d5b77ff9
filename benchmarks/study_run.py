"""A training run of a study, finished by whatever it still needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train import run as runs
from train.finished import stored_report
from train.paths import CONFIG


def finished(preset: Path, run: Path, data: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the report of a run: start it, resume it if it was stopped, or read it if it ended.

    Args:
        preset: file of the configuration.
        run: folder of the run.
        data: manifest or dataset folder.
        overrides: changed options, `key=value`; a run that has begun keeps those it began with.
    """
    if not (run / CONFIG).exists():
        return runs.start(preset, run, str(data), overrides)
    return stored_report(run) or runs.resume(run, [])
