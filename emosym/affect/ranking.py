"""Agreement of a predicted ranking of the strongest emotions with the true one.

Ref: EEmo-Logic, stage 2 (docs/papers.md), ranking reward; EEmo-Bench (arXiv 2504.16405).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

HITS = (0.25, 0.15, 0.10)
"""Score for naming the true first, second and third emotion, at any rank."""
ORDER = 0.5
"""Largest score for the order."""
TWO_SHARED = 2 / 3
"""Share of `ORDER` that two common emotions can reach."""


def ranking_score(true: Sequence[str], predicted: Sequence[str]) -> float:
    """Return a score in [0, 1]: hits, and the order of the emotions that both rankings name.

    Order is Kendall's τ over ranks, from -1 (reversed: score 0) to 1. Fewer than two common
    emotions have no order. In `predicted`, repetitions and all but the first three are ignored.

    Args:
        true: three emotions, strongest first, all different.
        predicted: emotions, strongest first.
    """
    predicted = list(dict.fromkeys(predicted))[: len(HITS)]
    hits = sum(score for score, label in zip(HITS, true, strict=True) if label in predicted)
    places = [predicted.index(label) for label in true if label in predicted]
    if len(places) < 2:
        return hits
    order = ORDER * (kendall(places) + 1) / 2
    return hits + (order * TWO_SHARED if len(places) == 2 else order)


def kendall(places: Sequence[int]) -> float:
    """Return Kendall's τ of distinct ranks to rising order: (concordant - discordant) / pairs."""
    signs = [1 if first < second else -1 for first, second in combinations(places, 2)]
    return sum(signs) / len(signs)
