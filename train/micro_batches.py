"""How a step is cut into optimizer updates and micro-batches, and how these see the whole step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from emosym.randomness import Draws
from emosym.records import Question, Sample
from train.distributed import ranks

Item = TypeVar("Item", bound=Sample | Question)


@dataclass(slots=True, eq=False, kw_only=True)
class MicroBatch(Generic[Item]):
    """One micro-batch of one rank; it lives for a step, and each pass over it continues `draws`."""

    step_items: Sequence[Item]
    """All N items of the step, the same on all ranks: samples, or questions in a phase whose
    `batch_kind` is questions."""
    rows: slice
    """Our B rows of the N."""
    update: slice
    """Rows of the optimizer update that we are a part of; all N where a step has one update."""
    draws: Draws
    """The same in each micro-batch of a step: draw for the whole step and take `rows`."""
    model_seed: int
    """Seed of the random draws inside the model (dropout)."""
    prepared: Any = None
    """What the phase's `prepare` returned for this micro-batch."""

    @property
    def items(self) -> Sequence[Item]:
        """Return our B items."""
        return self.step_items[self.rows]

    @property
    def total(self) -> int:
        """Return N, items of the step."""
        return len(self.step_items)

    @property
    def share(self) -> float:
        """Return B / items of the update: 1 / (ranks x micro-batches)."""
        return len(self.items) / len(self.step_items[self.update])

    @property
    def alone(self) -> bool:
        """Return whether each rank has one micro-batch of the step, so `loss` can gather."""
        return len(self.items) * ranks.size() == self.total

    def normal(self, *shape: int) -> Tensor:
        """Return our rows of standard normal draws [N, *shape]."""
        return self.draws.normal(self.total, *shape)[self.rows]

    def uniform(self, *shape: int) -> Tensor:
        """Return our rows of uniform draws [N, *shape]."""
        return self.draws.uniform(self.total, *shape)[self.rows]

    def seed_model(self) -> None:
        """Seed the draws inside the model; the trainer does so before each loss.

        A forward pass in `prepare` that must see the same dropout as the loss calls it first.
        """
        torch.manual_seed(self.model_seed)

    def join(self, own: Tensor, cached: Tensor | None) -> Tensor:
        """Return the rows of the whole step [N, ...]; only our rows [B, ...] have a gradient.

        For losses that contrast or compare items (of a step with one update). Each micro-batch
        returns the loss of the whole step on the joined rows. Our rows' gradient is multiplied by
        N / B, because the engines average over N / B micro-batches; together these give the exact
        gradient. Ref: GradCache (arXiv 2101.06983), section 3.2.

        Args:
            own: our rows, with gradient.
            cached: all rows, from `gather` in `prepare`; None where each rank has one micro-batch,
                whose rows are gathered here.
        """
        if len(own) == self.total:
            return own
        whole = gather([self], [own]) if cached is None else cached.clone()
        constant = own.detach()
        whole[self.rows] = constant + (own - constant) * (self.total / len(own))
        return whole


def gather(batches: Sequence[MicroBatch[Item]], parts: Sequence[Tensor]) -> Tensor:
    """Return the rows of a whole step, [N, ...], without gradient; all ranks call it together.

    Args:
        batches: all micro-batches of this rank; one only where each rank has one.
        parts: their rows, [B, ...] each, in the same order.

    Raises:
        RuntimeError: some rows of the step are missing.
    """
    if sum(map(len, parts)) * ranks.size() != batches[0].total:
        raise RuntimeError("gather needs all micro-batches of a step: call it in prepare")
    whole = parts[0].new_zeros(batches[0].total, *parts[0].shape[1:])
    for batch, part in zip(batches, parts, strict=True):
        whole[batch.rows] = part.detach()
    return ranks.total(whole)


def split(
    items: Sequence[Item], updates: int, micro_batches: int, key: tuple[int | str, ...]
) -> list[list[MicroBatch[Item]]]:
    """Return this rank's micro-batches of each optimizer update of a step.

    Args:
        items: of the step, a multiple of updates x micro-batches x ranks.
        updates: optimizer updates that the step is divided into.
        micro_batches: of an update, on each rank.
        key: of the step's random draws.
    """
    size = len(items) // updates
    share = size // (micro_batches * ranks.size())
    found: list[list[MicroBatch[Item]]] = []
    for update in range(updates):
        rows = slice(update * size, (update + 1) * size)
        found.append([])
        for number in range(micro_batches):
            first = rows.start + (number * ranks.size() + ranks.rank()) * share
            own = Draws(*key, "own", update * micro_batches + number + 1, ranks.rank())
            found[-1].append(
                MicroBatch(
                    step_items=items,
                    rows=slice(first, first + share),
                    update=rows,
                    draws=Draws(*key),
                    model_seed=own.generator.initial_seed(),
                )
            )
    return found
