from __future__ import annotations

from collections import Counter

import torch

from data_tools.affectworld.scene import SUBJECTS
from eval.generation.drawn_training import degraded, draw


def test_pictures_to_learn_from_are_balanced_and_follow_the_seed() -> None:
    pixels, scenes = draw(20, "x")
    assert Counter(scene.subject for scene in scenes) == dict.fromkeys(SUBJECTS, 2)
    again, same = draw(20, "x")
    assert torch.equal(pixels, again)
    assert scenes == same
    assert not torch.equal(pixels, draw(20, "y")[0])


def test_degraded_pictures_are_a_little_worse() -> None:
    pixels, _ = draw(20, "x")
    torch.manual_seed(0)
    worse = degraded(pixels)
    assert worse.shape == pixels.shape
    assert 0 <= worse.min() < worse.max() <= 1
    assert 0.001 < (worse - pixels).abs().mean() < 0.1
