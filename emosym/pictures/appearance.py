"""How a picture looks, in numbers that do not depend on what it shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, BLOCK = 64, 8
"""Sides in pixels of the compared image and of its blocks."""
SIZE = 3 * 2 * (2 * BLOCK - 1) + 6
"""Numbers of an appearance."""
_LUMA = np.array([0.299, 0.587, 0.114])
_TINY = 1e-4

_K = np.arange(BLOCK)
_DCT = np.sqrt(2 / BLOCK) * np.cos(np.pi * (2 * _K[None] + 1) * _K[:, None] / (2 * BLOCK))
_DCT[0] /= np.sqrt(2)
_BAND = np.add.outer(_K, _K).ravel()


def appearance(image: Image.Image) -> NDArray[np.float64]:
    """Return the statistics of an RGB image, [SIZE].

    For luminance and both colour differences, in each of 15 bands of the discrete cosine transform
    of 8 x 8 blocks: mean and deviation over the blocks of the logarithm of the coefficients. Then
    mean and deviation of red, green and blue. Drawings, photographs and noise differ in them.
    """
    small = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(small, np.float64) / 255
    luma = pixels @ _LUMA
    numbers: list[NDArray] = []
    for plane in (luma, pixels[..., 2] - luma, pixels[..., 0] - luma):
        blocks = plane.reshape(SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK).transpose(0, 2, 1, 3)
        levels = np.log(np.abs(_DCT @ blocks @ _DCT.T) + _TINY).reshape(-1, BLOCK * BLOCK)
        for measured in (levels.mean(0), levels.std(0)):
            numbers.append(np.bincount(_BAND, measured) / np.bincount(_BAND))
    return np.concatenate([*numbers, pixels.mean((0, 1)), pixels.std((0, 1))])
