"""Sizes are global: two ranks train what one does."""

from __future__ import annotations

import pytest
import torch

from emosym.errors import UserError
from model_zoo.text.text_encoders import SENTENCE
from tests.train import probes
from tests.train.processes import environment, in_ranks
from train.distributed import ranks

STEPS = 4
RATE = {
    "learning_rate": 2e-4,
    "weight_decay": 0.1,
    "warmup_steps": 0,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 1.0,
}
ENGINE = {"understander": RATE, "generator": RATE, "autoencoder": RATE}
GRPO = {"reward_weights": probes.TOY, "num_generations": 4, "loss_type": "grpo"}
PRESETS: dict[str, tuple[str, dict]] = {
    "autoencode": ("autoencode", {}),
    "compress": ("compress", {"compress": {"language_weight": 0.5}}),
    "words": (
        "compress",
        {
            "compress": {
                "distil_weight": 1.0,
                "reconstruct_weight": 0.5,
                "knowledge_encoder": SENTENCE,
            },
            "reasoning_tokens": 3,
        },
    ),
    "verify_posterior": ("verify_posterior", {}),
    "verify_grpo": ("verify_grpo", {"verify_grpo": GRPO}),
    # Tokens are counted, and rewards spread, over all ranks.
    "dapo": (
        "verify_grpo",
        {
            "verify_grpo": {
                **GRPO,
                "loss_type": "dapo",
                "scale_rewards": "batch",
                "multi_objective_aggregation": "normalize_then_sum",
            }
        },
    ),
    "instruct": ("instruct", {"data": {"tasks": ["affect", "valence", "dominant"]}}),
    "tasks": (
        "verify_grpo",
        {
            "data": {"tasks": ["arousal", "dominant"]},
            "verify_grpo": {
                "num_generations": 4,
                "loss_type": "grpo",
                "multi_objective_aggregation": "normalize_then_sum",
                "reward_weights": {
                    "toy": 1.0,
                    "similarity": 1.0,
                    "affect_gaussian": 1.0,
                    "length": 0.5,
                    "format": 0.0,
                    "emotion": 0.0,
                    "affect_threshold": 0.0,
                },
            },
        },
    ),
    "generate": ("generate", {"generate": {"update_understander": True, "image_share": 0.5}}),
    "remember": ("remember", {"remember": {"per_emotion": 2, "admission": {"delay": 1}}}),
}


def presets(model, world, **engine) -> dict[str, dict]:
    return {
        name: probes.settings(
            model,
            world,
            stages=[{"steps": STEPS, "cycle": {phase: 1}}],
            engine={**ENGINE, **engine},
            **{**sections, phase: {"batch_size": 4, **sections.get(phase, {})}}
            if phase != "remember"
            else sections,
        )
        for name, (phase, sections) in PRESETS.items()
    }


@pytest.fixture(scope="module")
def one(tmp_path_factory, model, world):
    folder = tmp_path_factory.mktemp("one")
    return in_ranks(probes.outcome, folder, presets(model, world))[0]


@pytest.fixture(scope="module")
def two(tmp_path_factory, model, world):
    folder = tmp_path_factory.mktemp("two")
    return in_ranks(probes.outcome, folder, presets(model, world), size=2)


def distance(found: dict, twin: dict) -> float:
    """Return the largest difference of two sets of weights."""
    return max(
        (found["weights"][n] - twin["weights"][n]).abs().max().item() for n in found["weights"]
    )


def movement(found: dict) -> float:
    """Return how far the weight that moved most has moved."""
    return max(
        (found["weights"][n] - found["before"][n]).abs().max().item() for n in found["weights"]
    )


def assert_same_rows(found: dict, twin: dict) -> None:
    for row, other in zip(found["rows"], twin["rows"], strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            if isinstance(value, str):
                assert value == other[name]
            else:
                assert value == pytest.approx(other[name], rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"RANK": "abc"},
            r"RANK is not .*; got 'abc'; expected an integer .*; start with",
        ),
        ({"RANK": "3"}, r"RANK is not .*; got '3'; expected an integer in \[0, 1\]"),
        ({"RANK": "-1"}, "RANK is not .*; got '-1'"),
        ({"WORLD_SIZE": None}, "WORLD_SIZE is not .*; got ''; expected an integer in"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is not .*; got '0'"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK is not .*; got 'x'"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT is not .*; got '99999'"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not .*; got ''; expected a host name"),
    ],
)
def test_an_environment_that_no_launcher_sets(monkeypatch, change, message):
    for name, value in ({**environment(1, 2, 29500), **change}).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^the environment variable {message}"):
        ranks.join()


@pytest.mark.parametrize("name", PRESETS)
def test_two_ranks_are_one(one, two, name):
    first, second = (rank[name] for rank in two)
    for part, value in first["weights"].items():
        assert torch.equal(value, second["weights"][part]), f"ranks differ in {part}"
    if name != "remember":
        assert movement(one[name]) > 4e-4
    assert distance(first, one[name]) < 1e-5
    assert_same_rows(first, one[name])


def test_two_ranks_admit_what_one_admits(one, two):
    alone, first, second = (found["remember"]["bank"] for found in (one, *two))
    assert sum(entry["source"] == "synthetic" for entry in alone) > 0
    assert first == second

    assert len(first) == len(alone)
    for entry, other in zip(first, alone, strict=True):
        for name, value in entry.items():
            same = pytest.approx(other[name], abs=1e-5) if isinstance(value, float) else other[name]
            assert value == same, f"{name} of entry {entry['id']}"
