"""How continuously a model follows valence and arousal, over many prompts.

The measure of one line of images is in `emosym.inference.continuity`, which is also used by
`emosym generate --sweep`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from emosym.inference.continuity import Continuity, mean_continuity
from emosym.tasks import metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuityScores:
    """Means over prompts along one axis."""

    mean: Continuity
    intervals: dict[str, tuple[float, float] | None]
    """95 % bootstrap interval of each measure over the prompts."""

    def to_dict(self) -> dict[str, object]:
        """Return the scores as plain data for a report."""
        return asdict(self.mean) | {"intervals": self.intervals}


def continuity_scores(
    prompts: Sequence[Continuity], *, seed: int, resamples: int = 500
) -> ContinuityScores:
    """Average the continuity along one axis over prompts."""
    intervals = {}
    for field in fields(Continuity):
        values = [getattr(one, field.name) for one in prompts]
        array = np.array([value for value in values if value is not None])
        intervals[field.name] = metrics.bootstrap(
            metrics.mean, array, seed=seed, resamples=resamples
        )
    return ContinuityScores(mean=mean_continuity(prompts), intervals=intervals)
