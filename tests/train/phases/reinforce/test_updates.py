"""Several updates a rollout: every option acts, old probabilities are the rollout's, resume."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from emosym.models.model import EmoSym
from tests.train import probes
from tests.train.phases.reinforce.test_phase import FAST, preset
from tests.train.processes import in_ranks
from train.micro_batches import split
from train.phases.registry import PHASES
from train.phases.reinforce.algorithms import ALGORITHMS

BOTH = {"affect": 0.5, "label": 0.5}
EXCHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **{
        f"{name}-epsilon": ({"algorithm": name}, {"algorithm_options": {"epsilon": 1.0}})
        for name in ("flow_grpo", "dance_grpo", "cps", "guard", "cps_guard", "ddpo")
    },
    "sde_window_size": ({"algorithm": "cps"}, {"algorithm_options": {"sde_window_size": 1}}),
    "sde_window_range": (
        {
            "algorithm": "cps",
            "num_inference_steps": 8,
            "algorithm_options": {"sde_window_size": 1, "sde_window_range": 0.125},
        },
        {"algorithm_options": {"sde_window_size": 1, "sde_window_range": 0.875}},
    ),
    "noise_level": ({"algorithm": "flow_grpo"}, {"algorithm_options": {"noise_level": 0.3}}),
    "kl_type": ({"algorithm": "flow_grpo"}, {"algorithm_options": {"kl_type": "output"}}),
    "guard": ({"algorithm": "flow_grpo"}, {"algorithm": "guard"}),
    "scale_rewards": ({"algorithm": "cps"}, {"algorithm_options": {"scale_rewards": "none"}}),
    "multi_objective_aggregation": (
        {"algorithm": "cps", "reward_weights": BOTH, "own_target": 1.0},
        {"algorithm_options": {"multi_objective_aggregation": "normalize_then_sum"}},
    ),
    "nft-noised_copies": ({"algorithm": "nft"}, {"algorithm_options": {"noised_copies": 1}}),
    "nft-nft_beta": ({"algorithm": "nft"}, {"algorithm_options": {"nft_beta": 0.1}}),
    "nft-scale_rewards": ({"algorithm": "nft"}, {"algorithm_options": {"scale_rewards": "none"}}),
    "nft-beta": ({"algorithm": "nft"}, {"beta": 0.0}),
    "gradient_range": ({"algorithm": "direct"}, {"algorithm_options": {"gradient_range": 1.0}}),
    "beta": ({"algorithm": "flow_grpo"}, {"beta": 40.0}),
    "guidance_scale": ({"algorithm": "flow_grpo"}, {"guidance_scale": 2.0}),
    "steps_per_generation": ({"algorithm": "flow_grpo"}, {"steps_per_generation": 2}),
    "num_iterations": ({"algorithm": "flow_grpo"}, {"num_iterations": 3}),
}
"""Case -> options, and others that replace some of them."""
SILENT = [name for name in EXCHANGES if name.endswith(("-epsilon", "nft_beta"))]
"""With one update a rollout the policy is the one that sampled, and these do nothing."""


def changed(run: Path, cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Take one step of each preset; return its weights, metrics and counts of updates."""
    found = {}
    for name, whole in cases.items():
        with probes.trainer(run / name, whole) as made:
            rows = made.step()
            found[name] = {
                "weights": probes.weights(made.context.model.generator),
                "rows": rows,
                "moves": [average.moves for average in made.averages.values()],
            }
    return found


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def distance(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """Return the Euclidean distance between two sets of weights."""
    return math.sqrt(sum((one[name] - two[name]).double().square().sum().item() for name in one))


@pytest.fixture(scope="module")
def found(tmp_path_factory, model, world):
    folder = tmp_path_factory.mktemp("updates")
    sizes = {"batch_size": 2, "num_images_per_prompt": 3}
    cases = {}
    for name, (base, other) in EXCHANGES.items():
        for passes in (1, 2) if name in SILENT else (2,):
            options = {**sizes, "num_iterations": passes, **base}
            cases[f"{name} {passes} base"] = preset(model, world, **options)
            cases[f"{name} {passes} other"] = preset(model, world, **(options | other))
    engine = {"generator": {**FAST["generator"], "ema_decay": 0.9, "ema_update_every": 2}}
    for name in ALGORITHMS:
        cases[f"updates {name}"] = preset(
            *(model, world, 1, engine),
            **sizes,
            algorithm=name,
            num_iterations=3,
            steps_per_generation=2,
        )
    return in_ranks(changed, folder, cases)[0]


@pytest.mark.parametrize("name", EXCHANGES)
def test_every_option_acts_with_two_updates_a_rollout(found, name):
    base, other = found[f"{name} 2 base"], found[f"{name} 2 other"]
    assert not same(base["weights"], other["weights"])


@pytest.mark.parametrize("name", SILENT)
def test_with_one_update_the_policy_is_the_one_that_sampled(found, name):
    base, other = found[f"{name} 1 base"], found[f"{name} 1 other"]
    if name.endswith("epsilon"):
        assert same(base["weights"], other["weights"])
        return
    # The gradient of nft with another β is the same but for rounding. Adam divides by its size, so
    # a weight whose gradient is little more than rounding may move otherwise.
    moved = distance(base["weights"], found[f"{name} 2 base"]["weights"])
    assert distance(base["weights"], other["weights"]) <= 1e-2 * moved


@pytest.mark.parametrize("name", [n for n in ALGORITHMS if n not in ("nft", "direct")])
def test_the_ratio_is_to_the_policy_that_sampled(found, name):
    """It leaves 1 once an update has been taken, and the clip acts on some of the images."""
    once, twice = (found[f"{name}-epsilon {passes} base"]["rows"] for passes in (1, 2))
    assert once["ratio_deviation"] < 1e-5
    assert once["clip_ratio"] == 0
    assert twice["ratio_deviation"] > 1e-4
    assert 0 < twice["clip_ratio"] <= 0.5  # never in the first of two passes
    assert found[f"{name}-epsilon 2 other"]["rows"]["clip_ratio"] == 0


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_average_counts_optimizer_steps(found, name):
    assert found[f"updates {name}"]["moves"] == [6]
    assert math.isfinite(found[f"updates {name}"]["rows"]["loss"])


def against_a_loop(run: Path, cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Take a step of each preset with the trainer and with plain PyTorch; compare the weights."""
    found = {}
    for name, whole in cases.items():
        with probes.trainer(run / name, whole) as made:
            before = probes.weights(made.context.model)
            model = copy.deepcopy(made.context.model)
            context = dataclasses.replace(
                made.context,
                model=model,
                parts={part: getattr(model, part) for part in EmoSym.PARTS},
            )
            phase = PHASES["reinforce"](context)
            trained = probes.trained(model.generator)
            rate = FAST["generator"]["learning_rate"]
            adam = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
            key = (made.config.seed, "reinforce", 0)
            updates = split(made._batch(0, "reinforce"), phase.steps_per_generation, 1, key)
            batches = [batch for update in updates for batch in update]
            for batch, prepared in zip(batches, phase.prepare(batches), strict=True):
                batch.prepared = prepared
            for _ in range(phase.num_iterations):
                for [batch] in updates:
                    adam.zero_grad(set_to_none=False)
                    phase.loss(batch).loss.backward()
                    torch.nn.utils.clip_grad_norm_(trained, 1.0)
                    adam.step()
            made.step()
            twin, real = probes.weights(model), probes.weights(made.context.model)
            found[name] = {
                "apart": max((twin[each] - real[each]).abs().max().item() for each in twin),
                "moved": max((before[each] - real[each]).abs().max().item() for each in real),
            }
    return found


def test_the_updates_are_a_plain_loop(tmp_path, model, world):
    engine = {"generator": {**FAST["generator"], "warmup_steps": 0}}
    cases = {
        name: preset(
            *(model, world, 1, engine),
            algorithm=name,
            num_images_per_prompt=3,
            num_iterations=2,
            steps_per_generation=2,
        )
        for name in ("guard", "nft", "direct")
    }
    (compared,) = in_ranks(against_a_loop, tmp_path, cases)
    for name, each in compared.items():
        assert each["moved"] > 1e-3, name
        assert each["apart"] < 1e-2 * each["moved"], (name, each)


def interrupted(run: Path, whole: dict[str, Any], stop: int) -> dict[str, Any]:
    """Run a preset to its end, and once more with a pause after `stop` steps."""
    with probes.trainer(run / "straight", whole) as made:
        made.train()
        straight = probes.weights(made.context.model)
    with probes.trainer(run / "paused", whole) as made:
        for _ in range(stop):
            made.step()
        made.save()
    with probes.trainer(run / "paused", whole) as made:
        assert made.state.step == stop
        made.train()
        paused = probes.weights(made.context.model)
    return {"straight": straight, "paused": paused}


@pytest.mark.parametrize("algorithm", ["cps", "nft"])
def test_several_updates_are_exact_on_resume(algorithm, tmp_path, model, world):
    whole = preset(
        *(model, world, 3),
        algorithm=algorithm,
        num_images_per_prompt=2,
        num_iterations=2,
        steps_per_generation=2,
    )
    (runs,) = in_ranks(interrupted, tmp_path, whole, 1)
    assert same(runs["straight"], runs["paused"])
