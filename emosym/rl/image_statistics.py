"""Statistics of a batch of images that reveal reward hacking.

Images of a generator that exploits its judge tend to become dark or flat, to lose edges, or to
resemble each other. Images are arrays [N, H, W, 3] in [0, 1].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emosym.pictures.loading import load_image

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue. Ref: ITU-R BT.601."""
DARK = 0.1
"""Luma below which a pixel is dark."""
EDGE = 0.1
"""Smallest difference in luma of two neighbouring pixels that counts as an edge."""
LEVELS = 8
"""Bins of each channel in the histogram of colours."""


def statistics(images: Sequence[Image.Image]) -> dict[str, float]:
    """Return `dark`, `colour_entropy`, `edges` and `diversity` of images of one size.

    `diversity` is undefined and left out for a single image. Its time grows with N².

    Raises `ValueError` without images, or for images of several sizes.
    """
    pixels = np.stack([np.asarray(load_image(image)) for image in images]) / 255
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
    """Return the mean entropy of the colour histograms of images in bits, in [0, 9].

    A histogram has 8 x 8 x 8 equal bins of RGB; its entropy is 0 for an image of one colour.
    """
    boxes = np.minimum((images * LEVELS).astype(np.int64), LEVELS - 1) @ (LEVELS**2, LEVELS, 1)
    return float(np.mean([_entropy(np.unique(image, return_counts=True)[1]) for image in boxes]))


def edge_density(images: NDArray) -> float:
    """Return the share of horizontal and vertical neighbours with an edge between them, in [0, 1].

    It is 0 for an image of one pixel.
    """
    luma = images @ LUMA
    steps = [np.abs(np.diff(luma, axis=axis)).ravel() for axis in (1, 2)]
    is_edge = np.concatenate(steps) > EDGE
    return float(is_edge.mean()) if len(is_edge) else 0.0


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
