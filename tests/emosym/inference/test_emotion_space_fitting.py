from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from emosym.errors import UserError
from emosym.inference.emotion_space_fitting import (
    RunningMoments,
    choose_samples,
    fit_emotion_space,
)
from emosym.inference.recognition import questions
from emosym.records import Sample
from tests.model_zoo.make import picture


def sample(number: int, emotion: str | None, split: str = "train") -> Sample:
    return Sample(id=f"{number:03d}", image=Path(f"{number}.png"), split=split, emotion=emotion)


@pytest.mark.parametrize("sizes", [(50,), (1,) * 50, (3, 40, 7)])
def test_moments_are_numpys_however_they_come(sizes):
    """Far from zero, where a sum of squares would lose every digit."""
    rows = 1e6 + np.random.default_rng(0).normal(size=(50, 3, 2)) * np.array([1.0, 1e-2])
    moments = RunningMoments()
    for part in torch.from_numpy(rows).split(sizes):
        moments.add(part)
    found = (moments.mean, (moments.squares / 50).sqrt())
    assert torch.allclose(found[0], torch.from_numpy(rows.mean(0)), rtol=1e-15, atol=0)
    assert torch.allclose(found[1], torch.from_numpy(rows.std(0)), rtol=1e-7, atol=0)
    assert moments.gaussian().mean.dtype == torch.float32


def test_one_image_has_no_spread():
    moments = RunningMoments()
    moments.add(torch.ones(1, 2, 2))
    assert moments.gaussian().std.tolist() == [[0, 0], [0, 0]]


def test_a_space_is_what_images_of_an_emotion_put_the_model_in(tiny):
    labels = ["awe", "fear", "awe", "sadness", "awe", "fear"]
    samples = [sample(i, label) for i, label in enumerate(labels)]
    images = [picture(seed=i) for i in range(6)]
    shown: list[int] = []
    found = fit_emotion_space(
        tiny, samples, lambda s: images[int(s.id)], batch_size=4, show=shown.append
    )
    assert list(found.gaussians) == ["awe", "fear", "sadness"]
    assert shown == [4, 6]
    output = tiny.read(questions(tiny, images))
    states = torch.cat([output.h_emo[:, None], output.h_ctx], 1).numpy()
    for name, one in found.gaussians.items():
        rows = states[[label == name for label in labels]]
        assert one.mean.shape == (1 + tiny.config.reasoning_tokens, 160)
        assert np.abs(one.mean.numpy() - rows.mean(0)).max() < 1e-4
        assert np.abs(one.std.numpy() - rows.std(0)).max() < 1e-4
    assert found.gaussians["awe"].std.max() > 0.01


def test_no_image_and_no_number(tiny):
    with pytest.raises(UserError, match="no images to fit an emotion space to; expected images"):
        fit_emotion_space(tiny, [], lambda s: picture())
    broken = copy.deepcopy(tiny)
    with torch.no_grad():
        broken.understander.reasoner.emotion.fill_(math.nan)
    with pytest.raises(UserError, match="the states of the model are not finite"):
        fit_emotion_space(broken, [sample(0, "awe")], lambda s: picture())


def test_images_are_picked_evenly_by_emotion():
    samples = [sample(i, "awe") for i in range(100)]
    samples += [sample(i, "fear") for i in range(100, 105)]
    samples += [sample(200, None), sample(201, "awe", "test"), sample(202, "sadness", "val")]
    found = choose_samples(samples, 40)
    assert [s.id for s in found[:20]] == [f"{i:03d}" for i in range(0, 100, 5)]
    assert [s.id for s in found[20:]] == [f"{i}" for i in range(100, 105)]
    assert choose_samples(samples[::-1], 40) == found
    assert choose_samples(samples[-3:]) == []
