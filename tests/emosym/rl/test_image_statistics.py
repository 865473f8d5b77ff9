from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from emosym.rl.image_statistics import (
    colour_entropy,
    dark_fraction,
    edge_density,
    pairwise_rms,
    statistics,
)


def flat(*colour: float) -> np.ndarray:
    return np.full((4, 4, 3), colour)


def test_pairwise_rms_by_hand() -> None:
    black, white = np.zeros((2, 2, 3)), np.ones((2, 2, 3))
    half = np.zeros((2, 2, 3))
    half[0] = 1  # half of the pixels differ by 1: RMS sqrt(1/2)
    assert pairwise_rms(np.stack([black, white])) == 1.0
    assert pairwise_rms(np.stack([black, black])) == 0.0
    assert pairwise_rms(np.stack([black, white, half])) == pytest.approx(
        (1 + 2 * math.sqrt(0.5)) / 3
    )
    assert pairwise_rms(black[None]) is None


def test_dark_is_told_by_luma_not_by_brightness() -> None:
    # Luma 0.114 · 0.8 = 0.0912 of a blue, 0.299 · 0.8 of a red, 0.587 · 0.8 of a green.
    blue, red, green = flat(0, 0, 0.8), flat(0.8, 0, 0), flat(0, 0.8, 0)
    assert dark_fraction(np.stack([blue, red, green])) == pytest.approx(1 / 3)
    bars = flat(0, 0, 0)
    bars[:, 3] = 1
    assert dark_fraction(bars[None]) == 0.75


def test_entropy_counts_boxes_of_colour() -> None:
    assert colour_entropy(flat(0.5, 0.5, 0.5)[None]) == 0
    assert math.copysign(1, colour_entropy(flat(0, 0, 0)[None])) == 1
    two = flat(0, 0, 0)
    two[:2] = 1
    four = two.copy()
    four[0] = (1, 0, 0)
    four[2] = (0, 0, 1)
    assert colour_entropy(two[None]) == 1
    assert colour_entropy(four[None]) == 2
    assert colour_entropy(np.stack([two, four, four])) == pytest.approx(5 / 3)
    near = flat(0.0, 0.0, 0.0)
    near[0] = 31 / 255  # the last level of the first box; 32 opens the second
    assert colour_entropy(near[None]) == 0
    near[0] = 32 / 255
    assert colour_entropy(near[None]) == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))


def test_every_box_once_is_nine_bits() -> None:
    levels = (np.arange(8) + 0.5) / 8
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, 16, 32, 3)
    assert colour_entropy(cube) == pytest.approx(9)


def test_edges_by_hand() -> None:
    assert edge_density(flat(0.3, 0.6, 0.9)[None]) == 0
    halves = flat(0, 0, 0)
    halves[:, 2:] = 1  # 4 of 12 neighbours beside differ, none of 12 below
    assert edge_density(halves[None]) == pytest.approx(4 / 24)
    board = np.indices((4, 4)).sum(0)[..., None] % 2 * np.ones(3)
    assert edge_density(board[None]) == 1
    assert edge_density(0.09 * board[None]) == 0
    assert edge_density(0.11 * board[None]) == 1
    assert edge_density(np.ones((1, 1, 1, 3))) == 0


def test_statistics_of_pictures() -> None:
    black, white = (Image.new("RGB", (6, 4), colour) for colour in ("black", "white"))
    found = statistics([black, white])
    assert found == {"dark": 0.5, "colour_entropy": 0, "edges": 0, "diversity": 1}
    assert statistics([black.convert("L")]) == {"dark": 1, "colour_entropy": 0, "edges": 0}
    with pytest.raises(ValueError, match="same shape"):
        statistics([black, Image.new("RGB", (4, 6))])
    with pytest.raises(ValueError, match="at least one"):
        statistics([])
