"""What a batch of images looks like, whatever it shows: how reward hacking is seen.

A generator that fools its judge gives itself away here: its images turn dark or flat, lose their
edges, or grow alike. Images are arrays [N, H, W, 3] in [0, 1].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue. Ref: ITU-R BT.601."""
DARK = 0.1
"""Luma below which a pixel is dark."""
EDGE = 0.1
"""Difference in luma of two neighbours above which an edge lies between them."""
LEVELS = 8
"""Bins of each channel in the histogram of colours."""


def statistics(images: Sequence[Image.Image]) -> dict[str, float]:
    """Return `dark`, `colour_entropy`, `edges` and `diversity` of images of one size.

    `diversity` is left out for a single image: it has none. Its time grows with N².

    Raises `ValueError` without images, or for images of several sizes.
    """
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images]) / 255
    found = {
        "dark": dark_fraction(pixels),
        "colour_entropy": colour_entropy(pixels),
        "edges": edge_density(pixels),
        "diversity": pairwise_rms(pixels),
    }
    return {name: value for name, value in found.items() if value is not None}


def dark_fraction(images: NDArray) -> float:
    """Return the share of pixels whose luma is below `DARK`, in [0, 1]."""
    return float(np.mean(images @ LUMA < DARK))


def colour_entropy(images: NDArray) -> float:
    """Return the mean over images of the entropy of their colours in bits, in [0, 9].

    Of the histogram of 8 x 8 x 8 equal boxes of RGB: 0 for a flat image.
    """
    boxes = np.minimum((images * LEVELS).astype(np.int64), LEVELS - 1) @ (LEVELS**2, LEVELS, 1)
    return float(np.mean([_entropy(np.unique(image, return_counts=True)[1]) for image in boxes]))


def edge_density(images: NDArray) -> float:
    """Return the share of neighbours, beside or below, that an edge parts, in [0, 1].

    Of a single pixel it is 0.
    """
    luma = images @ LUMA
    steps = [np.abs(np.diff(luma, axis=axis)).ravel() for axis in (1, 2)]
    parted = np.concatenate(steps) > EDGE
    return float(parted.mean()) if len(parted) else 0.0


def pairwise_rms(images: NDArray) -> float | None:
    """Return the mean over all pairs of images [N, H, W, 3] in [0, 1] of their RMS distance.

    RMS over pixels and channels: 0 for equal images, 1 for black against white. None when N < 2.
    """
    pairs = list(itertools.combinations(np.asarray(images, dtype=np.float64), 2))
    if not pairs:
        return None
    return float(np.mean([np.sqrt(np.mean((one - two) ** 2)) for one, two in pairs]))


def _entropy(counts: NDArray) -> float:
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # no negative zero
