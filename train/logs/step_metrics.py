"""The metrics of a step, from those of its micro-batches on all ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from train.distributed import ranks


class StepMetrics:
    """Means and maxima over all updates, micro-batches and ranks of a step.

    All ranks add the same names in the same order.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}
        self._maxima: dict[str, list[Tensor]] = {}

    def add(
        self,
        means: Mapping[str, Tensor | float],
        maxima: Mapping[str, Tensor | float] | None = None,
    ) -> None:
        """Add the metrics of one micro-batch.

        Args:
            means: name -> a number, or one for each item; NaN counts as not measured.
            maxima: name -> a number of which the largest is reported.
        """
        for kept, named in ((self._values, means), (self._maxima, maxima or {})):
            for name, value in named.items():
                number = torch.as_tensor(value, dtype=torch.float32).detach().flatten().cpu()
                kept.setdefault(name, []).append(number)

    def result(self) -> dict[str, float]:
        """Return every metric of the step, the same on all ranks; NaN where none was measured."""
        values = [torch.cat(each) for each in self._values.values()]
        sums = torch.stack([each.nansum() for each in values])
        counts = torch.stack([(~each.isnan()).sum() for each in values])
        total, count = ranks.mean(torch.stack([sums, counts]).to(ranks.device()))
        found = dict(zip(self._values, (total / count).tolist(), strict=True))
        if self._maxima:
            own = torch.stack([torch.cat(each).max() for each in self._maxima.values()])
            largest = ranks.largest(own.to(ranks.device())).tolist()
            found |= dict(zip(self._maxima, largest, strict=True))
        return found
