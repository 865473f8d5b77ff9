"""How well a ranking of the strongest emotions agrees with the true one.

Ref: EEmo-Logic (arXiv 2602.01173), stage 2 ranking reward; EEmo-Bench (arXiv 2504.16405).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

HITS = (0.25, 0.15, 0.10)
"""Worth of naming the emotion that is truly first, second, third, at any place."""
ORDER = 0.5
"""Worth of the right order."""
TWO_SHARED = 2 / 3
"""Share of the order's worth that two shared emotions can earn."""


def ranking_score(true: Sequence[str], said: Sequence[str]) -> float:
    """Return a score in [0, 1]: hits, and the order of the emotions that both name.

    Order is Kendall's τ over ranks, from -1 (reversed: worth 0) to 1. Fewer than two shared
    emotions have no order. Of what was said, repetitions and all beyond the third count nothing.

    Args:
        true: three emotions, strongest first, all different.
        said: emotions as the model ranks them.
    """
    said = list(dict.fromkeys(said))[: len(HITS)]
    hits = sum(worth for worth, label in zip(HITS, true, strict=True) if label in said)
    places = [said.index(label) for label in true if label in said]
    if len(places) < 2:
        return hits
    order = ORDER * (kendall(places) + 1) / 2
    return hits + (order * TWO_SHARED if len(places) == 2 else order)


def kendall(places: Sequence[int]) -> float:
    """Return τ of distinct ranks against increasing order: (concordant - discordant) / pairs."""
    signs = [1 if first < second else -1 for first, second in combinations(places, 2)]
    return sum(signs) / len(signs)
