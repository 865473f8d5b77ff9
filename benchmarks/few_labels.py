"""Which samples keep their label in studies of few labels."""

from __future__ import annotations

from collections.abc import Sequence

from emosym.affect.taxonomies import MIKELS8
from emosym.randomness import Draws
from emosym.records import Sample


def few_labels(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Return `count` random samples; the numbers of any two emotions differ by at most one."""
    order = Draws("labels", seed).permutation(len(samples)).tolist()
    by_emotion = {
        name: [samples[i] for i in order if samples[i].emotion == name] for name in MIKELS8
    }
    return [
        sample
        for number, group in enumerate(by_emotion.values())
        for sample in group[: len(range(number, count, len(MIKELS8)))]
    ]
