"""Sizes of the evaluation follow the run's length; a look is short whatever the preset."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from emosym.config import load_config
from train.evaluation.sizes import (
    SHORT_SIZES,
    SHORT_STEPS,
    SHORT_WORLD,
    describe_sizes,
    resolve_sizes,
    shorten,
)
from train.phases.registry import train_config

PRESETS = Path(__file__).resolve().parents[3] / "train" / "presets"


def config_of(*overrides: str):
    name = PRESETS / "tiny" / "joint-tiny.yaml"
    return load_config(train_config(), name, overrides)


@pytest.mark.parametrize(
    ("steps", "images", "requests", "grids"),
    [(1, 32, 8, 1), (20, 32, 8, 1), (120, 120, 30, 1), (250, 250, 62, 2), (5000, 256, 64, 3)],
)
def test_sizes_follow_the_number_of_steps(steps, images, requests, grids) -> None:
    config = config_of(f"stages=[{{steps: {steps}, cycle: {{compress: 1}}}}]")
    assert resolve_sizes(config) == ["images", "requests", "grids"]
    evaluate = config.evaluate
    assert (evaluate.images, evaluate.requests, evaluate.grids) == (images, requests, grids)
    assert resolve_sizes(config) == [], "what is resolved stays, whatever the steps"


def test_sizes_that_are_given_stay() -> None:
    config = config_of("evaluate.images=0", "evaluate.grids=7")
    assert resolve_sizes(config) == ["requests"]
    assert (config.evaluate.images, config.evaluate.grids) == (0, 7)


def test_the_demo_measures_what_its_numbers_were_measured_on() -> None:
    config = load_config(train_config(), PRESETS / "demo.yaml")
    assert resolve_sizes(config) == []
    evaluate = config.evaluate
    assert (evaluate.images, evaluate.requests, evaluate.per_request) == (240, 48, 2)
    assert evaluate.grids == 3


def test_sizes_are_told_with_how_to_change_them() -> None:
    config = config_of("evaluate.requests=0", "evaluate.questions=5", "evaluate.before=false")
    resolve_sizes(config)
    told = describe_sizes(config.evaluate)
    assert "after training: at most 256 images with answers, 3 grids x 25 images" in told
    assert "5 questions of each task" in told
    assert "requests x" not in told
    assert "evaluate.images=" in told


@pytest.mark.parametrize("path", sorted(PRESETS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_look_at_any_preset_is_short_and_sees_every_phase(path: Path) -> None:
    before = load_config(train_config(), path)
    config = copy.deepcopy(before)
    changes = shorten(config)
    assert sum(stage.steps for stage in config.stages) <= 2 * SHORT_STEPS
    assert config.data.world.count <= SHORT_WORLD
    for name, most in SHORT_SIZES.items():
        assert getattr(config.evaluate, name) <= most
    for short, whole in zip(config.stages, before.stages, strict=True):
        assert short.cycle.keys() == whole.cycle.keys()
        assert 1 <= short.steps <= whole.steps
        assert short.steps >= min(whole.steps, sum(short.cycle.values())), "every phase has a step"
    assert load_config(train_config(), path, changes) == config, "the changes are overrides"


def test_a_run_that_is_short_already_is_not_changed() -> None:
    config = config_of(
        "stages=[{steps: 3, cycle: {compress: 1}}]",
        "evaluate={images: 4, requests: 2, grids: 0}",
        "data.world.count=100",
    )
    before = copy.deepcopy(config)
    assert shorten(config) == []
    assert config == before
