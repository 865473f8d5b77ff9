from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from emosym.inference.continuity import Continuity, continuity, mean_continuity, rms, small_pixels


def flat(*levels: float) -> np.ndarray:
    return np.stack([np.full((2, 2, 3), level) for level in levels])


def test_steps_by_hand() -> None:
    angles = np.radians([0, 60, 60])
    found = continuity(
        np.array([-1.0, 0.5, 0.2]),
        flat(0.0, 0.1, 0.4),
        np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1], [2], [3]],
    )
    assert found.spearman == pytest.approx(0.5)  # ranks 1, 3, 2 against 1, 2, 3: 1 - 6·2 / (3·8)
    assert found.colour_step == pytest.approx(0.2)  # 0.1 and 0.3
    assert found.embedding_step == pytest.approx(0.25)  # 1 - cos 60° and 0; length is no matter
    assert found.unevenness == pytest.approx(1.5)  # 0.3 / 0.2


def test_only_the_order_of_what_is_judged_counts() -> None:
    pixels, vectors = flat(0, 0.5, 1), np.ones((3, 1))
    rising, falling = np.array([-0.01, 0.0, 2.9]), np.array([1.0, 0.0, -1.0])
    assert continuity(rising, pixels, vectors).spearman == pytest.approx(1)
    assert continuity(falling, pixels, vectors).spearman == pytest.approx(-1)


def test_images_that_never_change_follow_nothing() -> None:
    found = continuity(np.ones(4), flat(1, 1, 1, 1), np.ones((4, 1)))
    assert found == Continuity(spearman=0, colour_step=0, embedding_step=0, unevenness=None)


def test_the_mean_is_over_all_series_that_have_the_measure() -> None:
    still = Continuity(spearman=0, colour_step=0, embedding_step=0, unevenness=None)
    moving = Continuity(spearman=1, colour_step=0.2, embedding_step=0.4, unevenness=1.5)
    assert mean_continuity([still, moving]) == Continuity(
        spearman=0.5, colour_step=0.1, embedding_step=0.2, unevenness=1.5
    )
    assert mean_continuity([still]) == still


def test_bad_series_are_errors() -> None:
    with pytest.raises(ValueError, match="two images"):
        continuity(np.ones(1), flat(1), np.ones((1, 1)))
    with pytest.raises(ValueError, match="unequal length"):
        continuity(np.ones(2), flat(1, 0), np.ones((3, 1)))
    with pytest.raises(ValueError, match="not finite"):
        continuity(np.array([0, math.nan]), flat(1, 0), np.ones((2, 1)))


def test_a_finer_grain_than_64_pixels_does_not_count() -> None:
    checks = Image.fromarray((np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8))
    grey = Image.new("L", (64, 64), 128)
    fine, coarse = small_pixels([checks, grey])
    assert fine.shape == (64, 64, 3)
    assert rms(fine, coarse) < 0.003
    assert rms(*small_pixels([Image.new("L", (9, 9), 0), Image.new("L", (70, 70), 255)])) == 1
