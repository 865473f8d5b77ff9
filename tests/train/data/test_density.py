"""Rare valence and arousal weigh more."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emosym.config import load_config
from emosym.errors import UserError
from emosym.randomness import Draws
from emosym.records import Sample
from tests.train import probes
from tests.train.processes import in_ranks
from train.data.density import MOST, bounded, density_weights, gaussian_kde
from train.micro_batches import MicroBatch
from train.phases.registry import train_config


def rated(points) -> list[Sample]:
    return [
        Sample(id=str(i), image=Path("x"), split="train", valence=v, arousal=a)
        for i, (v, a) in enumerate(points)
    ]


def test_by_hand():
    """Three corners of a square: covariance [[1/3, -1/6], [-1/6, 1/3]], Silverman's 3^(-1/3)."""
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    silverman = 3 ** (-1 / 3)
    # The inverse of the covariance is [[4, 2], [2, 4]]: corner to corner 4, 4, and 4 - 4 + 4.
    pair = math.exp(-0.5 * 4 / silverman)
    scale = 2 * math.pi * silverman * math.sqrt(1 / 9 - 1 / 36)
    assert gaussian_kde(points).tolist() == pytest.approx([(1 + 2 * pair) / 3 / scale] * 3)


def test_the_slow_twin(monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 2)) @ np.array([[1.0, 0.6], [0.0, 0.4]])
    centred = points - points.mean(0)
    kernel = (centred.T @ centred / 39) * 40 ** (-2 / 6)
    inverse = np.linalg.inv(kernel)
    twin = [
        sum(math.exp(-0.5 * (a - b) @ inverse @ (a - b)) for b in points)
        / (40 * 2 * math.pi * math.sqrt(np.linalg.det(kernel)))
        for a in points
    ]
    assert gaussian_kde(points).tolist() == pytest.approx(twin, rel=1e-10)
    monkeypatch.setattr("train.data.density._BLOCK", 100)  # two rows at once
    assert gaussian_kde(points).tolist() == pytest.approx(twin, rel=1e-10)


def test_the_density_integrates_to_one():
    """The mean over a fine square of the density of points, times its area."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(30, 2))
    axis = np.linspace(-6, 6, 121)
    kernel = np.cov(points.T) * 30 ** (-1 / 3)
    inverse = np.linalg.inv(kernel)

    def density(places: np.ndarray) -> np.ndarray:
        apart = places[:, None] - points
        inside = np.exp(-0.5 * np.einsum("npi,ij,npj->np", apart, inverse, apart))
        return inside.mean(1) / (2 * np.pi * np.sqrt(np.linalg.det(kernel)))

    assert gaussian_kde(points).tolist() == pytest.approx(density(points).tolist())
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    assert density(grid).sum() * 0.1**2 == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_weights_are_the_power_of_rarity_with_mean_one(power):
    points = np.random.default_rng(2).normal(size=(60, 2)).clip(-2, 2)
    found = density_weights(rated(points.tolist()), power)
    weights = np.array(list(found.values()))
    assert weights.mean() == pytest.approx(1)
    density = gaussian_kde(points)
    free = weights < MOST
    products = (weights * density**power)[free]
    assert products.tolist() == pytest.approx([products[0]] * free.sum())
    assert (density[~free] < density[free].min()).all()


def test_a_lonely_rating_meets_the_bound_and_the_mean_stays():
    points = np.concatenate([np.random.default_rng(3).normal(size=(300, 2)) * 0.05, [[3.0, -3.0]]])
    weights = list(density_weights(rated(points.tolist()), 2.0).values())
    assert weights[-1] == MOST
    assert np.mean(weights) == pytest.approx(1)


def test_bounds_by_hand():
    assert bounded(np.array([1.0, 3.0]), 10.0).tolist() == [0.5, 1.5]
    # The last is 2; what is left of the mean, 4 - 2, is shared one to one to two.
    assert bounded(np.array([1.0, 1.0, 2.0, 96.0]), 2.0).tolist() == [0.5, 0.5, 1.0, 2.0]
    # The third is 0.94 at first, and would be 2.3 once the last is held at 1.5.
    assert bounded(np.array([1.0, 1.0, 30.0, 96.0]), 1.5).tolist() == [0.5, 0.5, 1.5, 1.5]


def test_who_is_not_rated_is_not_named():
    samples = rated([(0, 0), (1, 0), (0, 1), (2, 2)])
    samples[2] = replace(samples[2], arousal=None)
    assert density_weights(samples, 1.0).keys() == {"0", "1", "3"}


@pytest.mark.parametrize("points", [[(1, 1)], [(1, 1)] * 5, [(0, 0), (0.5, 1), (1, 2)]])
def test_ratings_without_a_density(points):
    with pytest.raises(UserError, match=r"spread over the plane; got \d .*; set generate.density"):
        density_weights(rated(points), 1.0)


def losses(run: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """Return the loss of a batch, those of its images alone, and what they weigh."""
    with probes.trainer(run, whole) as made:
        phase, samples = made.phases["generate"], made.context.training_set.samples[:4]
        alone = []
        for i in range(5):
            rows = slice(i, i + 1) if i < 4 else slice(0, 4)
            with torch.no_grad():
                part = MicroBatch(
                    step_items=samples,
                    rows=rows,
                    update=slice(0, 4),
                    draws=Draws("a", "step"),
                    model_seed=0,
                )
                alone.append(phase.loss(part).loss.item())
        return {
            "alone": alone[:4],
            "batch": alone[4],
            "weights": phase.weights,
            "ids": [sample.id for sample in samples],
            "count": len(made.context.training_set.samples),
        }


def test_generate_weighs_its_images(tmp_path, model, world):
    """An image weighs alone what it weighs in a batch, and twins differ by their weight alone."""
    stages = [{"steps": 1, "cycle": {"generate": 1}}]
    found = {}
    for power in (0.0, 1.0):
        whole = probes.settings(
            model, world, stages=stages, generate={"density_weight": power, "image_share": 0.0}
        )
        [found[power]] = in_ranks(losses, tmp_path / str(power), whole)
    plain, weighed = found[0.0], found[1.0]
    assert plain["weights"] == {}
    assert len(weighed["weights"]) == weighed["count"]
    weights = [weighed["weights"][name] for name in weighed["ids"]]
    assert max(weights) - min(weights) > 0.1
    for one, twin, weight in zip(weighed["alone"], plain["alone"], weights, strict=True):
        assert one == pytest.approx(twin * weight, rel=1e-4)
    for each in (plain, weighed):
        assert each["batch"] == pytest.approx(np.mean(each["alone"]), rel=1e-4)


@pytest.mark.parametrize("power", [-1, 2.5])
def test_a_power_that_is_none(power):
    whole = {"stages": [{"steps": 1, "cycle": {"generate": 1}}]}
    with pytest.raises(UserError, match=r"density_weight must lie in \[0, 2\]; got"):
        load_config(train_config(), None, [f"generate.density_weight={power}"], whole)
