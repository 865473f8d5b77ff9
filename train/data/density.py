"""Weights of images by how rare their valence and arousal are. Ref: EmotiCrafter, 1 / KDE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emosym.errors import UserError
from emosym.records import Sample

MOST = 10.0
"""Largest weight, so that one outlying rating does not dominate a step."""
_BLOCK = 2**22
"""Pairs of ratings that are compared at once."""


def density_weights(samples: Sequence[Sample], power: float) -> dict[str, float]:
    """Return id -> weight of the samples that are rated: (1 / density)^power, at most `MOST`.

    The density is estimated from all ratings. The weights have mean 1, also when some reach the
    bound. A sample without valence or arousal has no entry.

    Raises:
        UserError: ratings that do not spread over the plane.
    """
    rated = [(s.id, s.affect) for s in samples if s.affect is not None]
    points = np.array([affect.coordinates for _, affect in rated])
    weights = bounded(gaussian_kde(points) ** -power, MOST)
    return dict(zip((name for name, _ in rated), weights.tolist(), strict=True))


def gaussian_kde(points: np.ndarray) -> np.ndarray:
    """Return the density at each of N points [N, 2]; the estimate includes the point itself.

    The kernel is the points' covariance times the square of Silverman's factor, N^(-1/6) in two
    dimensions. Ref: Silverman 1986, section 4.3. All pairs are compared: 1e5 points take minutes.

    Raises:
        UserError: the points lie on a line, so their density over the plane is undefined.
    """
    count = len(points)
    spread = np.cov(points.T) if count > 1 else np.zeros((2, 2))
    if np.linalg.matrix_rank(spread, tol=1e-9) < 2:
        raise UserError(
            "generate.density_weight needs ratings that spread over the plane",
            got=f"{count} with valence and arousal, in one point or on a line",
            fix="set generate.density_weight=0",
        )
    kernel = spread * count ** (-1 / 3)
    # With L L' = kernel, distances of L^-1 x are those that the kernel measures.
    white = np.linalg.solve(np.linalg.cholesky(kernel), points.T).T
    sums = np.empty(count)
    rows = max(1, _BLOCK // count)
    for first in range(0, count, rows):
        apart = white[first : first + rows, None] - white
        sums[first : first + rows] = np.exp(-0.5 * (apart**2).sum(-1)).sum(1)
    return sums / (count * 2 * np.pi * np.sqrt(np.linalg.det(kernel)))


def bounded(raw: np.ndarray, most: float) -> np.ndarray:
    """Return positive numbers scaled to mean 1 and clipped at `most` > 1."""
    free = np.ones(len(raw), bool)
    while True:
        scale = (len(raw) - most * (~free).sum()) / raw[free].sum()
        over = free & (raw * scale > most)
        if not over.any():
            return np.where(free, raw * scale, most)
        free &= ~over
