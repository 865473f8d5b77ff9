"""How continuously images change while valence or arousal rises and nothing else changes.

Spearman's ρ measures whether the change follows the request. Step sizes measure how smooth it is.
They replace LPIPS-Continuous, whose network weights this project does not ship; they are *not*
LPIPS. Images that never change have the smallest steps, so step sizes mean nothing without ρ.

Ref: LPIPS-Continuous, arXiv 2501.05710 (EmotiCrafter), section 4.2.
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
from emosym.pictures.loading import load_image

SIDE = 64
"""Side in pixels at which images are compared: removes noise, and makes models of different
resolution comparable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuity:
    """Measures of one series of images, or their means over several."""

    spearman: float
    """ρ of requested and judged values, in [-1, 1]; 0 where all judged values are equal."""
    colour_step: float
    """Mean RMS distance of neighbouring images in sRGB, in [0, 1]."""
    embedding_step: float
    """Mean 1 − cosine of the embeddings of neighbouring images, in [0, 2]."""
    unevenness: float | None
    """Largest colour step divided by the mean one, at least 1; None where no image changes."""


def continuity(judged: NDArray, pixels: NDArray, embeddings: NDArray) -> Continuity:
    """Measure a series of P images whose requested value rises from each to the next.

    Args:
        judged: the judged value of each image, [P].
        pixels: as `small_pixels`, [P, H, W, 3] in [0, 1].
        embeddings: [P, D], none of length zero.

    Raises `ValueError` for fewer than two images, unequal lengths, or values that are not finite.
    """
    check_arrays(judged, pixels, embeddings)
    if len(judged) < 2:
        raise ValueError("a series has two images or more")
    colours = np.array([rms(one, two) for one, two in pairwise(pixels)])
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rho = spearman(judged, np.arange(len(judged)))
    return Continuity(
        spearman=0.0 if rho is None else rho,
        colour_step=float(colours.mean()),
        embedding_step=float(np.mean(1 - (unit[:-1] * unit[1:]).sum(1))),
        unevenness=float(colours.max() / colours.mean()) if colours.any() else None,
    )


def mean_continuity(lines: Sequence[Continuity]) -> Continuity:
    """Return the mean of each measure over series; of unevenness over those that have one."""
    uneven = [line.unevenness for line in lines if line.unevenness is not None]
    return Continuity(
        spearman=fmean(line.spearman for line in lines),
        colour_step=fmean(line.colour_step for line in lines),
        embedding_step=fmean(line.embedding_step for line in lines),
        unevenness=fmean(uneven) if uneven else None,
    )


def small_pixels(images: Sequence[Image.Image]) -> NDArray:
    """Return images as float32 [N, 64, 64, 3] in [0, 1], averaged over blocks of pixels."""
    box = Image.Resampling.BOX
    return np.stack(
        [np.asarray(load_image(image).resize((SIDE, SIDE), box)) for image in images]
    ).astype(np.float32) / np.float32(255)


def rms(one: NDArray, two: NDArray) -> float:
    """Return the RMS difference of two images [H, W, 3] over pixels and channels."""
    return float(np.sqrt(np.mean((one - two) ** 2, dtype=np.float64)))
