"""How the global batch of each phase divides over updates, ranks and micro-batches."""

from __future__ import annotations

from emosym.errors import UserError
from train.config import RunConfig
from train.distributed import ranks
from train.phases.base import steps_per_generation
from train.phases.registry import PHASES
from train.schedule import Schedule


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
        cut = f" and {name}.steps_per_generation={updates[name]}" if updates[name] > 1 else ""
        sizes = ", ".join(f"{each}.batch_size={sections[each].batch_size}" for each in wrong)
        raise UserError(
            "batch sizes are global and must divide over ranks and micro-batches",
            got=f"{sizes} with NPROC={ranks.size()} and gradient_accumulation_steps={accumulation}"
            + cut,
            expected=f"multiples of {updates[name] * per_update}",
            fix=f"change NPROC, engine.gradient_accumulation_steps or {name}.batch_size",
        )
    if ranks.is_first():
        for name, section in sections.items():
            size, count = section.batch_size, updates[name]
            print(
                f"{name}: {size} a step = {f'updates {count} x ' if count > 1 else ''}"
                f"ranks {ranks.size()} x micro-batches {accumulation} x"
                f" {size // (count * per_update)}"
            )
