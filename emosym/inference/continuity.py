"""How images change while one of valence and arousal rises and nothing else does.

Whether the change follows what was asked (Spearman), and in how small and how even steps. The steps
stand in for LPIPS-Continuous, whose network's weights this project does not have: they are *not*
LPIPS. Images that never change have the smallest steps, so read them beside Spearman.

Ref: LPIPS-Continuous, arXiv 2501.05710 (EmotiCrafter) §4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emosym.affect.correlation import check_arrays, spearman

SIDE = 64
"""Images are compared at this side in pixels: a finer grain is noise, and models of different
resolution compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuity:
    """One line of images, or the mean of several."""

    spearman: float
    """ρ of asked and judged, in [-1, 1]. Judged all alike follows no order: 0."""
    colour_step: float
    """Mean RMS distance in sRGB of neighbours, in [0, 1]."""
    embedding_step: float
    """Mean 1 − cosine of neighbours' embeddings, in [0, 2]."""
    unevenness: float | None
    """Largest colour step over the mean one: 1 is even; None where no image changes."""


def continuity(judged: NDArray, pixels: NDArray, embeddings: NDArray) -> Continuity:
    """Measure one line of P images whose asked value rises from each to the next.

    Args:
        judged: what is seen of the value that was asked for, [P].
        pixels: as `small_pixels`, [P, H, W, 3] in [0, 1].
        embeddings: [P, D]; none is zero.

    Raises `ValueError` for fewer than two images, unequal lengths, or values that are not finite.
    """
    check_arrays(judged, pixels, embeddings)
    if len(judged) < 2:
        raise ValueError("a line has two images or more")
    colour = np.array([rms(one, two) for one, two in pairwise(pixels)])
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    followed = spearman(judged, np.arange(len(judged)))
    return Continuity(
        spearman=0.0 if followed is None else followed,
        colour_step=float(colour.mean()),
        embedding_step=float(np.mean(1 - (unit[:-1] * unit[1:]).sum(1))),
        unevenness=float(colour.max() / colour.mean()) if colour.any() else None,
    )


def mean_continuity(lines: Sequence[Continuity]) -> Continuity:
    """Return the mean of each measure over lines; of unevenness over those that have one."""
    uneven = [line.unevenness for line in lines if line.unevenness is not None]
    return Continuity(
        spearman=fmean(line.spearman for line in lines),
        colour_step=fmean(line.colour_step for line in lines),
        embedding_step=fmean(line.embedding_step for line in lines),
        unevenness=fmean(uneven) if uneven else None,
    )


def small_pixels(images: Sequence[Image.Image]) -> NDArray:
    """Return images as float32 [N, 64, 64, 3] in [0, 1], larger ones averaged down."""
    box = Image.Resampling.BOX
    return np.stack(
        [np.asarray(image.convert("RGB").resize((SIDE, SIDE), box)) for image in images]
    ).astype(np.float32) / np.float32(255)


def rms(one: NDArray, two: NDArray) -> float:
    """Return the RMS difference of two images [H, W, 3] over pixels and channels."""
    return float(np.sqrt(np.mean((one - two) ** 2, dtype=np.float64)))
