"""Our trainer with a single phase, for benches that time its steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from emosym.config import load_config
from emosym.models.model import EmoSym
from train.config import TrainConfig
from train.data.run_data import RunData
from train.trainer import Trainer


def single_phase_trainer(
    folder: Path,
    model: EmoSym,
    data: RunData,
    *,
    phase: str,
    options: Mapping[str, object],
    engine: str,
    learning_rate: float,
) -> Trainer:
    """Return a trainer whose every step is one of `phase`, with a constant learning rate.

    Args:
        folder: of the run; created.
        model: the model; it is trained.
        data: of the run.
        phase: name of the phase.
        options: of the phase.
        engine: `understander` or `generator`, the part that the phase trains.
        learning_rate: of that part.
    """
    config = load_config(
        TrainConfig,
        None,
        base={
            "stages": [{"steps": 1000, "cycle": {phase: 1}}],
            "engine": {engine: {"lr": learning_rate, "warmup": 0, "decay": "constant"}},
            phase: dict(options),
        },
    )
    folder.mkdir()
    return Trainer(config, folder, model, data, "bench")
