"""The study of reinforce: every algorithm runs with options that it reads, from one preset."""

from __future__ import annotations

import pytest

from benchmarks.reinforce_study import CONTROL, PRESET, configured, table
from emosym.config import load_config
from train.phases.registry import train_config
from train.phases.reinforce.algorithms import ALGORITHMS


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_departs_from_the_preset_in_what_it_needs_alone(algorithm):
    base, found = load_config(train_config(), PRESET), configured(algorithm, 4e-4, 30)
    assert found.reinforce.algorithm == algorithm
    assert found.reinforce.num_images_per_prompt == (
        base.reinforce.num_images_per_prompt if algorithm == "direct" else 8
    )
    assert (found.stages[0].steps, found.stages[0].cycle) == (30, base.stages[0].cycle)
    assert found.engine.generator.learning_rate == 4e-4
    for name in (
        *("batch_size", "num_inference_steps", "guidance_scale"),
        *("beta", "own_target", "reward_weights"),
    ):
        assert getattr(found.reinforce, name) == getattr(base.reinforce, name)
    assert getattr(found.reinforce.options(), "kl_type", "output") == "output"


def test_the_control_never_reinforces():
    stages = configured(CONTROL, 1e-4, 30).stages
    assert [(stage.steps, stage.cycle) for stage in stages] == [(30, {"generate": 1})]


def test_the_table_puts_the_lowest_error_first():
    scores = {"subject_accuracy": 0.9, "seed_diversity": 0.2, "prompt_diversity": 0.25}
    rows = [
        {"algorithm": "start", "rate": 0.0, "steps": 0, "oracle_error": 1.2, **scores},
        {"algorithm": "cps", "rate": 1e-4, "steps": 90, "oracle_error": 0.75, **scores},
    ]
    assert table(rows).splitlines()[2:] == [
        "| cps | 1e-04 | 90 | 0.750 | 0.900 | 0.200 | 0.250 |",
        "| start | – | – | 1.200 | 0.900 | 0.200 | 0.250 |",
    ]
