"""Trackers of experiments, by the names of transformers' `report_to`."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from emosym.errors import UserError


class Tracker(Protocol):
    """Receives the metrics of each step, on the first rank only."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a step; all are finite."""

    def image(self, step: int, name: str, picture: Image.Image) -> None:
        """Record a picture of a step."""

    def close(self) -> None:
        """Write what is pending, and end."""


class TensorBoard:
    """Event files in the run's folder `tensorboard`."""

    def __init__(self, run: Path, start: int, project: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(run / "tensorboard", purge_step=start)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record scalars."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, picture: Image.Image) -> None:
        """Record an image."""
        self._writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandB:
    """Weights & Biases; `WANDB_API_KEY`, `WANDB_MODE=offline` and the like are its own settings.

    The run is named by its folder, and a resumed run continues under the same id. Files of the
    offline mode are in the run's folder `wandb`.
    """

    def __init__(self, run: Path, start: int, project: str, config: Mapping[str, Any]) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", project),
                name=run.name,
                id=os.environ.get("WANDB_RUN_ID") or _identity(run),
                resume="allow",
                dir=run,
                config=dict(config),
                # The code, the machine's name and the program's output are not sent.
                settings=wandb.Settings(
                    silent=True, console="off", save_code=False, disable_git=True, host="host"
                ),
            )
        except (wandb.errors.Error, OSError) as error:
            fix = "log in with `wandb login`, or set WANDB_MODE=offline"
            raise _no_start("wandb", error, fix) from error
        self._wandb = wandb

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record scalars."""
        self._run.log(dict(metrics), step=step)

    def image(self, step: int, name: str, picture: Image.Image) -> None:
        """Record an image."""
        self._run.log({name: self._wandb.Image(picture)}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Trackio:
    """trackio, in its own folder (`TRACKIO_DIR`), or in the Space that `TRACKIO_SPACE_ID` names."""

    def __init__(self, run: Path, start: int, project: str, config: Mapping[str, Any]) -> None:
        import trackio

        try:
            self._run = trackio.init(
                project=project, name=_identity(run), resume="allow", config=dict(config)
            )
        except Exception as error:  # it has no error class of its own
            raise _no_start("trackio", error, "correct it, or leave it out of report_to") from error
        self._trackio = trackio

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record scalars."""
        self._trackio.log(dict(metrics), step=step)

    def image(self, step: int, name: str, picture: Image.Image) -> None:
        """Record an image."""
        self._trackio.log({name: self._trackio.Image(picture)}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._trackio.finish()


TRACKERS: dict[str, type[TensorBoard | WandB | Trackio]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
}


def check_trackers(names: Iterable[str]) -> None:
    """Raise UserError for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"report_to names {name}, which is not installed",
                fix=f"`{sys.executable} -m pip install {name}`, or leave it out of report_to",
            )


def open_trackers(
    names: Iterable[str], run: Path, start: int, project: str, config: Mapping[str, Any]
) -> list[Tracker]:
    """Open the trackers of a run.

    Args:
        names: keys of `TRACKERS`.
        run: folder of the run.
        start: step that runs next; rows of it and of later ones are replaced where that is
            possible.
        project: where W&B and trackio put the run.
        config: the configuration, as plain data.

    Raises:
        UserError: a tracker that cannot start.
    """
    return [TRACKERS[name](run, start, project, config) for name in dict.fromkeys(names)]


def _identity(run: Path) -> str:
    """Return an id that the run keeps when it is resumed, and that no run elsewhere has."""
    import hashlib

    place = hashlib.sha256(str(run.resolve()).encode(errors="surrogateescape")).hexdigest()
    return f"{run.name[:40]}-{place[:8]}"


def _no_start(name: str, error: Exception, fix: str) -> UserError:
    return UserError(f"{name} cannot start", got=error, fix=fix)
