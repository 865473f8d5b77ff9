"""Where valence and arousal are given, the states are read from the image in another light."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_tools.dataset import open_dataset
from emosym.records import Sample
from tests.train.phases.bare import loss
from train.phases.base import PhaseContext
from train.phases.generate import GenerateConfig, SourceDropout, jittered

GIVEN = {
    "affect_dropout": 0.0,
    "condition_dropout": 0.0,
    "source_dropout": SourceDropout(affect=0.0),
}
"""Options under which every image has its valence and arousal."""


@pytest.fixture(scope="module")
def samples(world) -> list[Sample]:
    return [sample for sample in open_dataset(world) if sample.split == "train"][:16]


def views(samples: list[Sample], monkeypatch, rows: slice = slice(None), **options) -> np.ndarray:
    """Return the pixels of the images of which a step reads the states, [N, H, W, 3]."""
    seen: list[np.ndarray] = []
    prompts = PhaseContext.image_prompts

    def record(context, images, *text):
        seen.extend(np.asarray(image, dtype=np.float64) for image in images)
        return prompts(context, images, *text)

    monkeypatch.setattr(PhaseContext, "image_prompts", record)
    loss(GenerateConfig(image_share=1.0, **options), samples, rows)
    monkeypatch.undo()
    return np.stack(seen)


def test_brightness_then_saturation_by_hand():
    image = Image.new("RGB", (2, 2), (100, 60, 20))
    assert jittered(image, 0.5, 1.0).getpixel((0, 0)) == (50, 30, 10)
    # Pillow's luma of (50, 30, 10): (299 * 50 + 587 * 30 + 114 * 10) / 1000 = 33.7
    assert jittered(image, 0.5, 0.0).getpixel((1, 1)) == (34, 34, 34)
    # 33.7 is rounded first; 34 + 2 * (value - 34), and no value below 0
    assert jittered(image, 0.5, 2.0).getpixel((1, 1)) == (66, 26, 0)
    assert np.array_equal(jittered(image, 1.0, 1.0), image)


def test_every_image_has_its_own_light(samples, monkeypatch):
    given = {"color_jitter": 0.7, **GIVEN}
    own = views(samples, monkeypatch, **(given | {"color_jitter": 0.0}))
    other = views(samples, monkeypatch, **given)
    ratios = other.mean((1, 2, 3)) / own.mean((1, 2, 3))
    assert ratios.min() > 0.3 - 0.02
    assert ratios.max() < 1.7 + 0.02
    assert ratios.std() > 0.15
    assert len(set(ratios.tolist())) == len(samples)
    half = views(samples, monkeypatch, slice(8, None), **given)
    assert np.array_equal(half, other[8:])  # a rank with half of the images draws the same


@pytest.mark.parametrize(
    "options",
    [
        {"affect_dropout": 1.0},
        {"source_dropout": SourceDropout(affect=1.0)},
        {"condition_dropout": 1.0},
    ],
    ids=["not wanted", "source dropped", "condition dropped"],
)
def test_the_own_light_where_valence_and_arousal_are_not_given(samples, monkeypatch, options):
    options = GIVEN | options
    own = views(samples, monkeypatch, color_jitter=0.0, **options)
    assert np.array_equal(views(samples, monkeypatch, color_jitter=0.7, **options), own)


def test_an_image_without_ratings_keeps_its_light(samples, monkeypatch):
    unrated = [replace(sample, valence=None) for sample in samples[:8]]
    options = GIVEN
    own = views([*unrated, *samples[8:]], monkeypatch, color_jitter=0.0, **options)
    other = views([*unrated, *samples[8:]], monkeypatch, color_jitter=0.7, **options)
    assert np.array_equal(own[:8], other[:8])
    assert not any(np.array_equal(*pair) for pair in zip(own[8:], other[8:], strict=True))
