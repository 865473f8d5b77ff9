"""How near a wrong emotion is to the right one: EEmo-Logic's reward for the dominant emotion.

By the words' norms alone, or by their definitions too. Ref: EEmo-Logic (arXiv 2602.01173), stage 2.
Rows are the target, columns the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from emosym.affect.definitions import definition_cosines
from emosym.affect.norms import WORDS
from emosym.errors import unknown

AXES = (0.5, 0.3, 0.2)
"""Weights of squared differences in valence, arousal and dominance."""
AFFECT_SHARE = 0.6
"""Weight of the affect part; the rest is semantic."""
SHARPNESS = 3
"""Power that pushes middling similarities towards 0."""


@lru_cache
def similarities(labels: tuple[str, ...], *, definitions: bool = False) -> np.ndarray:
    """Return the similarity R of every pair of labels, [Y, Y] in [0, 1]; not to be written to.

    Args:
        labels: emotion words.
        definitions: count what the words mean too, not only their norms.

    Raises:
        UserError: a word without norms.
    """
    semantic = semantic_similarity(definition_cosines(labels)) if definitions else None
    return reward_matrix(affect_similarity(labels), semantic)


def affect_similarity(labels: Sequence[str]) -> np.ndarray:
    """Return 1 - distance / farthest distance of the row between word norms, [Y, Y] in [0, 1].

    Raises:
        UserError: a word without norms.
    """
    for label in labels:
        if label not in WORDS:
            raise unknown("emotion word", label, WORDS)
    points = np.array([WORDS[label] for label in labels])
    distance = np.sqrt(((points[:, None] - points[None]) ** 2 * AXES).sum(-1))
    farthest = distance.max(1, keepdims=True)
    return 1 - distance / np.where(farthest > 0, farthest, 1)


def semantic_similarity(cosines: np.ndarray) -> np.ndarray:
    """Return cosines of definitions, each row spread over [0, 1], [Y, Y]."""
    low, high = cosines.min(1, keepdims=True), cosines.max(1, keepdims=True)
    return (cosines - low) / np.where(high > low, high - low, 1)


def reward_matrix(affect: np.ndarray, semantic: np.ndarray | None = None) -> np.ndarray:
    """Return R = (0.6 V + 0.4 S²)³, [Y, Y] in [0, 1] with ones on the diagonal.

    S is `semantic` over its largest value off the diagonal. Without it R = V³.
    """
    if semantic is None:
        return affect**SHARPNESS
    apart = ~np.eye(len(semantic), dtype=bool)
    largest = semantic[apart].max(initial=0)  # of two labels, each is the other's farthest
    scaled = (semantic / largest if largest else semantic).clip(0, 1)
    scaled[~apart] = 1
    return (AFFECT_SHARE * affect + (1 - AFFECT_SHARE) * scaled**2) ** SHARPNESS
