"""Reinforcement of the generator, in processes that train."""

from __future__ import annotations

import math
import re
import statistics
import typing

import pytest

from emosym.config import load_config
from emosym.errors import UserError
from tests.model_zoo.chat_server import serving
from tests.train import probes
from tests.train.processes import in_ranks
from train.phases.registry import train_config
from train.phases.reinforce.algorithms import ALGORITHMS
from train.phases.reinforce.config import OPTIONS, NftOptions, ReinforceConfig

FAST = {
    "generator": {
        "learning_rate": 5e-3,
        "weight_decay": 0.0,
        "warmup_steps": 2,
        "lr_scheduler_type": "constant",
    }
}


def preset(model, world, steps=1, engine=FAST, **reinforce):
    return probes.settings(
        model,
        world,
        stages=[{"steps": steps, "cycle": {"reinforce": 1}}],
        engine=engine,
        reinforce={"num_inference_steps": 4, **reinforce},
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory, model, world):
    """Return the first step of every algorithm, and what some learn."""
    folder = tmp_path_factory.mktemp("reinforce")
    cases = {name: preset(model, world, 2, algorithm=name) for name in ALGORITHMS}
    cases["guided"] = preset(model, world, 2, algorithm="cps", guidance_scale=2.0)
    cases["guided-direct"] = preset(model, world, 2, algorithm="direct", guidance_scale=2.0)
    many = {"batch_size": 4, "num_images_per_prompt": 4, "own_target": 1.0, "beta": 0.0}
    both = {"affect": 0.5, "label": 0.5}
    cases["label"] = preset(model, world, algorithm="cps", reward_weights=both, own_target=1.0)
    cases["label-direct"] = preset(
        model,
        world,
        algorithm="direct",
        reward_weights={"affect": 0.0, "label": 1.0},
        own_target=1.0,
    )
    for name in ("cps_guard", "ddpo"):  # the last step adds no noise, and three of four are drawn
        options = {"sde_window_range": 1.0, "sde_window_size": 3}
        cases[f"late-{name}"] = preset(
            *(model, world, 6), algorithm=name, algorithm_options=options
        )
    velocity = {"kl_type": "output"}
    cases["velocity"] = preset(
        *(model, world, 2), algorithm="flow_grpo", algorithm_options=velocity
    )
    cases["learns"] = preset(model, world, 40, algorithm="direct", **many)
    cases["learns-nft"] = preset(model, world, 40, algorithm="nft", **many)
    return in_ranks(
        probes.many, probes.learned, {n: (folder / n, whole, 4) for n, whole in cases.items()}
    )[0]


@pytest.mark.parametrize("name", [*ALGORITHMS, "guided", "guided-direct"])
def test_the_first_update_starts_from_the_starting_generator(found, name):
    """The adapter-off distance is 0 before anything moved, and not after."""
    first, second = found[name]["rows"]
    assert first["reinforce/kl"] < 1e-10
    assert second["reinforce/kl"] > 1e-8


@pytest.mark.parametrize("name", ["late-cps_guard", "late-ddpo"])
def test_a_step_without_noise_is_never_drawn(found, name):
    """It has no density: its log-ratio was NaN, and the run ended."""
    rows = found[name]["rows"]
    assert len(rows) == 6
    for row in rows:
        assert math.isfinite(row["reinforce/grad_norm"])
        assert row["reinforce/ratio_deviation"] < 1e-5


def test_the_distance_to_the_start_is_the_published_one_or_that_of_velocities(found):
    """Of the first two of four steps, s² = 4.9 and 4.41: |Δv|² is 980 and 252.9 times as much.

    The first update is the same; then both are at the same distance, but for the second's steps.
    """
    transition, output = found["flow_grpo"]["rows"], found["velocity"]["rows"]
    assert transition[0]["reinforce/grad_norm"] == output[0]["reinforce/grad_norm"]
    times = output[1]["reinforce/kl"] / transition[1]["reinforce/kl"]
    assert 252.9 < times < 980


@pytest.mark.parametrize("name", [n for n in ALGORITHMS if n not in ("nft", "direct")] + ["guided"])
def test_sampling_and_training_agree_on_the_policy(found, name):
    for row in found[name]["rows"]:
        assert row["reinforce/ratio_deviation"] < 1e-5


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_logged_is_in_its_range(found, name):
    row = found[name]["rows"][0]
    for metric in ("reward", "oracle", "second_judge", "dark", "edges", "diversity"):
        assert 0 <= row[f"reinforce/{metric}"] <= 1, metric
    assert row["reinforce/second_judge"] == row["reinforce/oracle"]
    assert row["reinforce/reward_spread"] > 0
    assert row["reinforce/zero_variance"] == 0
    assert row["reinforce/hacking"] == 0


def test_each_judge_is_logged_where_there_are_several(found):
    (row,) = found["label"]["rows"]
    parts = [row[f"reinforce/reward_{name}"] for name in ("affect", "label")]
    assert row["reinforce/reward"] == pytest.approx(sum(parts) / 2, abs=1e-6)
    assert 0 < parts[1] < 1
    assert 0 < found["label-direct"]["rows"][0]["reinforce/reward"] < 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reward_weights": {"label": 1.0}}, "judge 'label' needs an emotion in every request"),
        ({"watch": ["label"]}, "judge 'label' needs an emotion in every request"),
        ({"reward_weights": {"afect": 1.0}}, "unknown differentiable judge.*mean 'affect'"),
        ({"algorithm": "direct", "reward_weights": {"http": 1.0}}, "unknown differentiable judge"),
        ({"reward_weights": {"affect": 0.0}}, "reward_weights are all 0"),
        ({"watch": ["affect"]}, "a judge that is trained on cannot watch"),
        (
            {"judges": {"clip_iqa": {"path": "x"}}},
            "a judge that is not used; got clip_iqa",
        ),
        ({"reward_weights": {"affect": 1.0, "http": 1.0}, "algorithm": "cps"}, "path is missing"),
        (
            {"algorithm": "cps", "algorithm_options": {"sde_window_size": 9}},
            "longer than the part of",
        ),
        (
            {
                "algorithm": "ddpo",
                "algorithm_options": {"sde_window_size": 4, "sde_window_range": 1.0},
            },
            "ddpo has no window of 4 steps that all add noise in the first 100% of the schedule;"
            " got noise in 3 of 4 steps; lower algorithm_options.sde_window_size, or raise",
        ),
        (
            {"algorithm": "cps", "algorithm_options": {"noise_level": 0.0}},
            "noise_level must be positive; got 0",
        ),
        (
            {"algorithm": "cps", "algorithm_options": {"kl_type": "velocity"}},
            "kl_type: got 'velocity'; expected .*transition.*output",
        ),
        (
            {"algorithm": "direct", "algorithm_options": {"epsilon": 0.2}},
            r"algorithm_options\.epsilon: unknown key; got algorithm=direct; expected one of"
            " gradient_range; leave it out, or choose another algorithm",
        ),
        (
            {"algorithm": "nft", "algorithm_options": {"noise_level": 0.7}},
            "noise_level: unknown key; got algorithm=nft; expected one of noised_copies, nft_beta,",
        ),
        (
            {"algorithm": "cps", "algorithm_options": {"nft_beta": 2.0}},
            "nft_beta: unknown key; got algorithm=cps; expected one of sde_window_size, ",
        ),
        (
            {"algorithm": "nft", "algorithm_options": {"nft_beta": "much"}},
            "algorithm_options of nft: nft_beta: got 'much'; expected a finite number",
        ),
        ({"algorithm": "nft", "algorithm_options": {"nft_beta": 0.0}}, "nft_beta must be positive"),
        ({"num_images_per_prompt": 1}, "num_images_per_prompt must be at least 2"),
        ({"own_target": 1.5}, "own_target"),
        ({"algorithm": "ppo"}, "algorithm"),
    ],
)
def test_what_cannot_be_learned_is_told_at_the_start(changes, told, tmp_path, model, world):
    whole = preset(model, world, **changes)
    (found,) = in_ranks(probes.refused, tmp_path / "run", whole)
    assert found is not None
    assert re.search(told, found), found


def test_every_algorithm_has_options():
    assert OPTIONS.keys() == ALGORITHMS.keys()
    algorithms = typing.get_type_hints(ReinforceConfig)["algorithm"]
    assert set(typing.get_args(algorithms)) == ALGORITHMS.keys()


def test_an_algorithm_is_chosen_by_an_override(model, world):
    whole = preset(model, world, algorithm="cps", algorithm_options={"noise_level": 0.5})
    chosen = ["reinforce.algorithm=nft", "reinforce.algorithm_options={}"]
    options = (
        load_config(
            train_config(), None, [*chosen, "reinforce.algorithm_options.nft_beta=0.5"], whole
        )
        .section("reinforce")
        .options()
    )
    assert options == NftOptions(nft_beta=0.5)
    with pytest.raises(UserError, match="noise_level: unknown key; got algorithm=nft"):
        load_config(train_config(), None, chosen[:1], whole)


def test_the_judges_gradient_raises_the_reward(found):
    reward = [row["reinforce/reward"] for row in found["learns"]["rows"]]
    assert statistics.mean(reward[-5:]) > statistics.mean(reward[:5]) + 0.01


def test_nft_raises_the_reward(found):
    reward = [row["reinforce/reward"] for row in found["learns-nft"]["rows"]]
    assert statistics.mean(reward[-5:]) > statistics.mean(reward[:5])


@pytest.mark.parametrize(("second", "stops"), [(-1.0, True), (1.0, False)])
def test_a_run_whose_judges_part_stops_itself(second, stops, tmp_path, model, world):
    whole = preset(model, world, 12, patience=6)
    (found,) = in_ranks(probes.parted, tmp_path / "run", whole, second)
    assert [row["reinforce/hacking"] for row in found["rows"][:5]] == [0] * 5
    if not stops:
        assert (found["told"], found["done"], found["saved"]) == (None, 12, 12)
        return
    assert found["told"].startswith("the reward rises while the second judge falls")
    assert "standard errors apart in 6 steps (reinforce/hacking)" in found["told"]
    # 0, 1, 2 and 3, 4, 5: means 3 apart, variances 1 and 1, standard error sqrt(2 / 3).
    assert found["rows"][5]["reinforce/hacking"] == pytest.approx(3 / (2 / 3) ** 0.5)
    assert (found["done"], found["saved"], len(found["rows"])) == (6, 6, 6)


def test_two_ranks_are_one(tmp_path, model, world):
    whole = preset(
        model,
        world,
        2,
        algorithm="cps_guard",
        num_images_per_prompt=4,
        algorithm_options={"sde_window_size": 1},
    )
    (alone,) = in_ranks(probes.outcome, tmp_path / "one", {"run": whole})
    both = in_ranks(probes.outcome, tmp_path / "two", {"run": whole}, size=2)
    first, second = alone["run"], both[0]["run"]
    start, end, twin = first["before"], first["weights"], second["weights"]
    apart = sum((end[name] - twin[name]).square().sum() for name in end).sqrt()
    moved = sum((end[name] - start[name]).square().sum() for name in end).sqrt()
    # Judges see 8-bit images: a sum that two processes round differently can move a pixel by 1/255,
    # and with it a reward and the advantages. How sums round depends on the processor (measured:
    # 1.6e-6 on one, 1.7e-3 on another). Rows that are mixed up or lost give a ratio near 1.
    assert apart < 1e-2 * moved
    for one, two in zip(first["rows"], second["rows"], strict=True):
        for metric in ("reward", "oracle", "loss", "grad_norm", "reward_spread"):
            key = f"reinforce/{metric}"
            assert one[key] == pytest.approx(two[key], rel=2e-3, abs=2e-5), metric


@pytest.mark.parametrize("role", ["rewards", "watch"])
def test_a_judge_that_fails_loses_no_step_before(role, tmp_path, model, world):
    """It answers five times and is down then: the third step of two images is refused."""
    answered = []

    def script(handler, body):
        answered.append(body)
        if len(answered) > 5:
            handler.send(500, b"out of order")
        else:
            handler.say("<answer>Emotion: awe; Valence: 1.0; Arousal: 2.0</answer>")

    with serving(script) as server:
        spec = {"path": server.url, "model": "seer", "retries": 0}
        weights = {"reward_weights": {"affect": 0.0, "http": 1.0}}
        named = weights if role == "rewards" else {"watch": ["http"]}
        whole = preset(
            *(model, world, 4), algorithm="cps", batch_size=1, judges={"http": spec}, **named
        )
        (found,) = in_ranks(probes.failed, tmp_path / "run", whole)
    assert found["told"].startswith(f"the judge at {server.url} does not answer")
    assert (found["done"], found["saved"]) == (2, 2)
