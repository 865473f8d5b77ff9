"""Recomputing layers changes memory and time, and says that prompts are read once an answer.

That the denoiser recomputes its own is measured in `tests/model_zoo/decoders/test_loading.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.train import probes
from tests.train.processes import in_ranks, train

CYCLE = {"compress": 1, "verify_posterior": 1, "verify_grpo": 1, "generate": 1}
TOLD = "verify_grpo reads each prompt 3 times, once for each answer"


def settings(model: Path, world: Path, recompute: bool, cycle: dict[str, int]) -> dict[str, Any]:
    return probes.settings(
        model,
        world,
        stages=[{"steps": 2 * len(cycle), "cycle": cycle}],
        engine={"gradient_checkpointing": recompute},
        generate={"update_understander": True, "image_share": 1.0},
        verify_grpo={"num_generations": 3, "reward_weights": probes.TOY},
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory, model, world) -> dict[str, dict[str, Any]]:
    """Return what a run with and a run without recomputed layers gave."""
    wholes = {
        name: settings(model, world, name == "recomputed", CYCLE) for name in ("kept", "recomputed")
    }
    return in_ranks(probes.outcome, tmp_path_factory.mktemp("runs"), wholes)[0]


def test_the_numbers_stay_the_same(found):
    kept, recomputed = found["kept"], found["recomputed"]
    for row, twin in zip(kept["rows"], recomputed["rows"], strict=True):
        assert row.keys() == twin.keys()
        for name, value in row.items():
            if name.endswith(("/loss", "/grad_norm", "/kl", "/reward_total", "/answer_tokens")):
                assert twin[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    moved = max((kept["weights"][n] - v).abs().max() for n, v in kept["before"].items())
    apart = max((recomputed["weights"][n] - v).abs().max() for n, v in kept["weights"].items())
    assert moved > 50 * apart


def test_sampling_and_training_agree_on_the_policy(found):
    deviations = [
        row["verify_grpo/ratio_deviation"]
        for row in found["recomputed"]["rows"]
        if "verify_grpo/ratio_deviation" in row
    ]
    assert len(deviations) == 2
    assert max(deviations) < 1e-4


@pytest.mark.parametrize(
    ("recompute", "cycle", "times"),
    [(True, {"verify_grpo": 1}, 1), (False, {"verify_grpo": 1}, 0), (True, {"compress": 1}, 0)],
    ids=["told", "nothing to tell", "no answers"],
)
def test_a_run_says_that_it_reads_prompts_once_an_answer(
    tmp_path, model, world, recompute, cycle, times
):
    whole = settings(model, world, recompute, cycle)
    whole["verify_grpo"]["reward_weights"] = {"format": 1.0}
    (tmp_path / "preset.yaml").write_text(json.dumps(whole))
    done = train("run", tmp_path / "preset.yaml", "--run", tmp_path / "run")
    assert done.code == 0, done.err
    assert done.err.count(TOLD) == times
