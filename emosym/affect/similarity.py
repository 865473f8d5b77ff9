"""Similarity of emotion labels: EEmo-Logic's reward for the dominant emotion.

It compares the words' norms and, optionally, their definitions. Rows are targets, columns
predictions. Ref: EEmo-Logic, stage 2 (docs/papers.md).
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
"""Weight of the similarity of norms; the rest is that of definitions."""
SHARPNESS = 3
"""Exponent that reduces medium similarities."""


@lru_cache
def similarities(labels: tuple[str, ...], *, definitions: bool = False) -> np.ndarray:
    """Return the similarity R of every pair of labels, [Y, Y] in [0, 1]; the array is cached.

    Args:
        labels: emotion words.
        definitions: use the words' definitions besides their norms.

    Raises:
        UserError: a word without norms.
    """
    semantic = semantic_similarity(definition_cosines(labels)) if definitions else None
    return reward_matrix(affect_similarity(labels), semantic)


def affect_similarity(labels: Sequence[str]) -> np.ndarray:
    """Return 1 - distance of norms / largest distance in the row, [Y, Y] in [0, 1].

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
    """Return cosines of definitions with each row scaled to [0, 1], [Y, Y]."""
    low, high = cosines.min(1, keepdims=True), cosines.max(1, keepdims=True)
    return (cosines - low) / np.where(high > low, high - low, 1)


def reward_matrix(affect: np.ndarray, semantic: np.ndarray | None = None) -> np.ndarray:
    """Return R = (0.6 V + 0.4 S²)³, [Y, Y] in [0, 1] with ones on the diagonal.

    V is `affect`, S is `semantic` / its largest value off the diagonal. Without it R = V³.
    """
    if semantic is None:
        return affect**SHARPNESS
    off_diagonal = ~np.eye(len(semantic), dtype=bool)
    largest = semantic[off_diagonal].max(initial=0)  # 0 for two labels: each is the row's minimum
    scaled = (semantic / largest if largest else semantic).clip(0, 1)
    scaled[~off_diagonal] = 1
    return (AFFECT_SHARE * affect + (1 - AFFECT_SHARE) * scaled**2) ** SHARPNESS
