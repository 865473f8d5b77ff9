"""Our trainer for benches and studies that time its steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from emosym.config import load_config
from emosym.models.model import EmoSym
from train.data.run_data import RunData
from train.phases.registry import train_config
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
        train_config(),
        None,
        base={
            "stages": [{"steps": 1000, "cycle": {phase: 1}}],
            "engine": {
                engine: {
                    "learning_rate": learning_rate,
                    "warmup_steps": 0,
                    "lr_scheduler_type": "constant",
                }
            },
            phase: dict(options),
        },
    )
    folder.mkdir()
    return Trainer(config, folder, model, data, "bench")


def seconds_of_cycle(trainer: Trainer, cycles: int) -> float:
    """Return the processor seconds of a turn of the first stage's cycle of phases.

    The time of other processes is not counted.

    Args:
        trainer: runs one turn to warm up, and those that are timed.
        cycles: turns that are timed.
    """
    length = sum(trainer.config.stages[0].cycle.values())
    for _ in range(length):
        trainer.step()
    start = time.process_time()
    for _ in range(cycles * length):
        trainer.step()
    return (time.process_time() - start) / cycles
