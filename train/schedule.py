"""Which phase a step belongs to, as a function of the step, and how its batch is divided."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import accumulate

from emosym.errors import UserError, unknown
from emosym.plugins import ADVICE
from train.config import OptimizerConfig, RunConfig, StageConfig
from train.distributed import ranks
from train.phases.base import steps_per_generation
from train.phases.registry import PHASES


class Schedule:
    """The phases of a run: a pure function of the step, so that all ranks and resumes agree."""

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
    """Return the learning rate of optimizer update `step` of the `total` updates of a part."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.lr_scheduler_type == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    left = 1 - done if config.lr_scheduler_type == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * (config.min_lr_rate + (1 - config.min_lr_rate) * left)


def check_sizes(config: RunConfig) -> None:
    """Print how each phase's global batch is divided over ranks and micro-batches.

    Raises:
        UserError: an unknown phase, a size that does not divide.
    """
    accumulation = config.engine.gradient_accumulation_steps
    sections = {
        name: config.section(name)
        for name in Schedule(config.stages, PHASES).totals()
        if hasattr(config.section(name), "batch_size")
    }
    updates = {name: steps_per_generation(section) for name, section in sections.items()}
    per_update = ranks.size() * accumulation
    wrong = [
        name for name, one in sections.items() if one.batch_size % (updates[name] * per_update)
    ]
    if wrong:
        name = wrong[0]
        several = updates[name] > 1
        cut = f" and {name}.steps_per_generation={updates[name]}" if several else ""
        option = f", {name}.steps_per_generation" if several else ""
        sizes = ", ".join(f"{each}.batch_size={sections[each].batch_size}" for each in wrong)
        raise UserError(
            "batch sizes are global and must divide over ranks and micro-batches",
            got=f"{sizes} with NPROC={ranks.size()} and gradient_accumulation_steps={accumulation}"
            + cut,
            expected=f"multiples of {updates[name] * per_update}",
            fix=f"change NPROC, engine.gradient_accumulation_steps{option} or {name}.batch_size",
        )
    if ranks.is_first():
        for name, section in sections.items():
            size, count = section.batch_size, updates[name]
            print(
                f"{name}: {size} a step = {f'updates {count} x ' if count > 1 else ''}"
                f"ranks {ranks.size()} x micro-batches {accumulation} x"
                f" {size // (count * per_update)}"
            )
