"""Which phase a step belongs to: pure functions of the step, so all ranks and resumes agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import accumulate

from emosym.errors import unknown
from emosym.plugins import ADVICE
from train.config import OptimizerConfig, StageConfig


class Schedule:
    """The phases of a run, step by step."""

    def __init__(self, stages: Sequence[StageConfig], known: Collection[str]) -> None:
        self.phases: list[str] = []
        """Phase of each step."""
        for number, stage in enumerate(stages):
            for name in stage.cycle:
                if name not in known:
                    raise unknown(f"phase in stages.{number}.cycle:", name, known, ADVICE)
            turn = [name for name, steps in stage.cycle.items() for _ in range(steps)]
            self.phases += [turn[i % len(turn)] for i in range(stage.steps)]
        self._counts = {
            name: list(accumulate((other == name for other in self.phases), initial=0))
            for name in set(self.phases)
        }

    def __len__(self) -> int:
        return len(self.phases)

    def phase_at(self, step: int) -> str:
        """Return the phase of a step in [0, len)."""
        return self.phases[step]

    def count(self, phase: str, before: int) -> int:
        """Return how many steps of a phase come before a step."""
        return self._counts[phase][before]

    def totals(self) -> dict[str, int]:
        """Return the steps of each phase, in order of first use."""
        return dict(Counter(self.phases))


def learning_rate(config: OptimizerConfig, step: int, total: int) -> float:
    """Return the learning rate of step `step` of the `total` steps that move a part."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.lr_scheduler_type == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    left = 1 - done if config.lr_scheduler_type == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * (config.min_lr_rate + (1 - config.min_lr_rate) * left)
