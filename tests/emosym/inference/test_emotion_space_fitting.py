from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from emosym.errors import UserError
from emosym.inference.emotion_space_fitting import (
    RANK,
    choose_samples,
    fit_emotion_space,
    fit_gaussian,
)
from emosym.inference.recognition import questions
from emosym.models.emotion_space import EmotionSpace, Gaussian
from emosym.records import Sample
from tests.model_zoo.make import picture


def sample(number: int, emotion: str | None, split: str = "train") -> Sample:
    return Sample(id=f"{number:03d}", image=Path(f"{number}.png"), split=split, emotion=emotion)


def flat(one: Gaussian) -> np.ndarray:
    """Return the factor's rows, in float64."""
    return one.factor.flatten(1).numpy().astype(float)


def drawn(count: int, *shape: int) -> np.ndarray:
    """Return states with correlated numbers whose deviations fall off, seed 0."""
    rng = np.random.default_rng(0)
    width = math.prod(shape)
    turned = np.linalg.qr(rng.normal(size=(width, width)))[0]
    rows = rng.normal(size=(count, width)) * 0.97 ** np.arange(width) @ turned
    return rows.reshape(count, *shape)


@pytest.mark.parametrize("count", [2, 7, RANK, RANK + 1])
def test_the_covariance_of_few_images_is_numpys(count):
    """Their states differ in one direction less than there are images; other rows are zero."""
    states = drawn(count, 5, 16)
    found = fit_gaussian(torch.from_numpy(states))
    assert found.mean.dtype == found.factor.dtype == torch.float32
    assert found.factor.shape == (RANK, 5, 16)
    assert np.abs(found.mean.numpy() - states.mean(0)).max() < 1e-6
    expected = np.cov(states.reshape(count, -1).T, bias=True)
    assert np.abs(flat(found).T @ flat(found) - expected).max() < 1e-6
    assert (found.factor[count - 1 :] == 0).all()
    assert found.factor[count - 2].abs().max() > 1e-3


def test_the_covariance_of_many_images_is_the_nearest_of_its_rank():
    states = drawn(200, 5, 16)
    found = flat(fit_gaussian(torch.from_numpy(states)))
    variances, directions = np.linalg.eigh(np.cov(states.reshape(200, -1).T, bias=True))
    largest = slice(-1, -RANK - 1, -1)
    nearest = (directions * variances)[:, largest] @ directions[:, largest].T
    assert np.abs(found.T @ found - nearest).max() < 1e-6
    assert variances[-RANK - 1] > 0.01  # of what is left out
    lengths = np.linalg.norm(found, axis=1)
    assert np.abs(lengths - np.sqrt(variances[largest])).max() < 1e-6
    assert (np.diff(lengths) < 0).all()
    assert np.abs(found @ found.T - np.diag(lengths**2)).max() < 1e-6


def test_a_direction_points_to_where_it_is_largest():
    states = torch.from_numpy(drawn(20, 3, 4))
    found, mirrored = flat(fit_gaussian(states)), flat(fit_gaussian(-states))
    for row in found[:12]:
        assert row[np.abs(row).argmax()] > 0
    assert np.abs(found - mirrored).max() < 1e-6
    assert np.array_equal(found, flat(fit_gaussian(states)))


def test_a_covariance_far_from_zero():
    """Where a sum of squares would lose every digit."""
    rows = np.random.default_rng(0).normal(size=(50, 3, 2)) * np.array([1.0, 1e-2])
    found = fit_gaussian(torch.from_numpy(1e6 + rows))
    assert torch.equal(found.mean, torch.from_numpy((1e6 + rows).mean(0)).float())
    expected = np.cov(rows.reshape(50, -1).T, bias=True)
    deviations = np.sqrt(np.diag(expected))
    error = (flat(found).T @ flat(found) - expected) / np.outer(deviations, deviations)
    assert np.abs(error).max() < 1e-6


def test_states_of_more_images_than_numbers():
    found = fit_gaussian(torch.from_numpy(drawn(100, 3, 2)))
    assert found.factor.shape == (RANK, 3, 2)
    assert (found.factor[6:] == 0).all()
    assert found.factor[5].abs().max() > 0.1


def test_one_image_has_no_spread():
    found = fit_gaussian(torch.full((1, 2, 2), 0.1))
    assert found.mean.tolist() == torch.full((2, 2), 0.1).tolist()
    assert torch.equal(found.factor, torch.zeros(RANK, 2, 2))
    space = EmotionSpace({"awe": found})
    assert torch.equal(space.sample({"awe": 1}, [3])[0], found.mean)


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
        expected = np.cov(rows.reshape(len(rows), -1).T, bias=True)
        assert np.abs(flat(one).T @ flat(one) - expected).max() < 1e-4
        if len(rows) == 1:
            assert (one.factor == 0).all()
            continue
        # What is drawn lies in the span of the deviations of the images from their mean.
        deviations = (rows - rows.mean(0)).reshape(len(rows), -1).astype(float)
        states_drawn = (found.sample({name: 1}, range(5)) - one.mean).flatten(1).numpy()
        residual = states_drawn - states_drawn @ np.linalg.pinv(deviations, 1e-6) @ deviations
        assert np.abs(residual).max() < 1e-4
        assert np.abs(states_drawn).max() > 0.01


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
