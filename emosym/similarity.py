"""How near a wrong emotion is to the right one: EEmo-Logic's reward for the dominant emotion.

Ref: EEmo-Logic (arXiv 2602.01173), stage 2. Rows are the target, columns the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emosym.errors import unknown
from emosym.norms import WORDS

AXES = (0.5, 0.3, 0.2)
"""Weights of squared differences in valence, arousal and dominance."""
AFFECT_SHARE = 0.6
"""Weight of the affect part; the rest is semantic."""
SHARPNESS = 3
"""Power that pushes middling similarities towards 0."""


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
    return 1 - distance / distance.max(1, keepdims=True)


def semantic_similarity(embeddings: np.ndarray) -> np.ndarray:
    """Return cosines of definitions, each row spread over [0, 1], [Y, Y].

    Args:
        embeddings: [Y, P], one definition each, of any length but 0.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosine = unit @ unit.T
    low, high = cosine.min(1, keepdims=True), cosine.max(1, keepdims=True)
    return (cosine - low) / (high - low)


def reward_matrix(affect: np.ndarray, semantic: np.ndarray | None = None) -> np.ndarray:
    """Return R = (0.6 V + 0.4 S²)³, [Y, Y] in [0, 1] with ones on the diagonal.

    S is `semantic` over its largest value off the diagonal. Without it R = V³: what is known where
    no sentence encoder is installed.
    """
    if semantic is None:
        return affect**SHARPNESS
    apart = ~np.eye(len(semantic), dtype=bool)
    scaled = (semantic / semantic[apart].max()).clip(0, 1)
    scaled[~apart] = 1
    return (AFFECT_SHARE * affect + (1 - AFFECT_SHARE) * scaled**2) ** SHARPNESS
