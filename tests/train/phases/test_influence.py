from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from emosym.interfaces import TextFeatures
from emosym.models.generator import Condition
from tests.train import probes
from tests.train.processes import in_ranks, train
from train.phases.influence import ERRORS, PATIENCE, influences, warnings

NAN = float("nan")


def condition(affect: list[list[float]]) -> Condition:
    """Return the condition of 3 images: states (1, 2, 4), prompts (10, 20, 40), one token each."""
    states, text = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([10.0, 20.0, 40.0])
    features = TextFeatures(text[:, None, None], text[:, None])
    return Condition(
        text=features,
        unconditional_text=features,
        h_ctx=states[:, None, None],
        h_emo=100 * states[:, None],
        affect=torch.tensor(affect),
    )


def losses(given: Condition) -> Tensor:
    """Return a loss that is a sum over the inputs, but for the squared affect."""
    total = given.h_ctx.sum((1, 2)) + given.h_emo.sum(1) + given.text.tokens.sum((1, 2))
    return total + given.affect.nan_to_num().square().sum(1)


def test_influences_by_hand():
    """States change by +1, +2, -3, and those of h_emo by a hundred times as much."""
    found = influences(condition([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]]), losses)
    assert found["ctx"][0] == pytest.approx(0)
    assert found["ctx"][1] == pytest.approx((7.0 / 3) ** 0.5)  # variance 14 / 2, three images
    assert found["state"][0] == pytest.approx(0, abs=1e-6)
    assert found["state"][1] == pytest.approx(101 * (7.0 / 3) ** 0.5)
    assert found["text"][1] == pytest.approx(10 * (7.0 / 3) ** 0.5)
    assert found["affect"][0] == pytest.approx(0)
    assert found["affect"][1] == pytest.approx((49.0 / 3) ** 0.5)  # +3, +5, -8


def test_an_influence_is_the_rise_of_the_loss():
    """The loss of a condition that fits is 0; with the next image's it is the squared distance."""
    own = condition([[NAN, NAN]] * 3)

    def distance(given: Condition) -> Tensor:
        return (given.h_ctx - own.h_ctx).square().sum((1, 2))

    found = influences(own, distance)
    assert found["ctx"][0] == found["state"][0] == pytest.approx((1 + 4 + 9) / 3)
    assert found["text"] == (0.0, 0.0)
    assert "affect" not in found


def test_the_user_is_told_once_what_has_no_influence():
    history = [0.0] * 4
    dead = {"state": (1.0, 0.1), "ctx": (0.01, 0.01), "affect": (-0.5, 0.1), "text": (1.0, 0.1)}
    for turn in range(PATIENCE + 2):
        told = warnings(dead, history)
        if turn != PATIENCE - 1:
            assert told == []
            continue
        first, second = told
        assert first.startswith(
            "generate: the decoder ignores the reasoning tokens: with another image's its loss"
            " changes by +0.01000 (standard error 0.01000); drop the other sources"
        )
        assert "valence" in second
    assert warnings(dead | {"ctx": (0.011 * ERRORS, 0.01)}, history) == []
    assert history == [0.0, 0.0, PATIENCE + 3, 0.0]


def influence_of(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "influence" in name}


def test_a_run_logs_influences_in_time(preset, tmp_path):
    path = preset(stages=[{"steps": 4, "cycle": {"generate": 1}}], generate={"influence_steps": 2})
    train("run", path, "--run", tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    logged = [influence_of(row) for row in rows]
    assert [len(each) for each in logged] == [0, 4, 0, 4]
    assert set(logged[1]) == {
        f"generate/influence_{name}" for name in ("state", "ctx", "affect", "text")
    }
    assert logged[1] != logged[3]


def test_a_run_logs_the_gate_of_a_word(preset, tmp_path):
    in_ranks(probes.write_model, tmp_path / "word", 4, "word")
    path = preset(model=str(tmp_path / "word"), stages=[{"steps": 3, "cycle": {"generate": 1}}])
    train("run", path, "--run", tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[0]["generate/gate"] == 1.0
    assert rows[2]["generate/gate"] != rows[0]["generate/gate"]


def measured(run, whole) -> list[dict[str, float]]:
    with probes.trainer(run, whole) as made:
        return [influence_of(made.step()) for _ in range(2)]


def test_two_ranks_measure_what_one_does(model, world, tmp_path):
    whole = probes.settings(
        model,
        world,
        stages=[{"steps": 2, "cycle": {"generate": 1}}],
        generate={"influence_steps": 1},
    )
    (alone,) = in_ranks(measured, tmp_path / "one", whole)
    both = in_ranks(measured, tmp_path / "two", whole, size=2)
    assert both[0] == both[1]
    for one, two in zip(alone, both[0], strict=True):
        assert len(one) == 4
        assert two == pytest.approx(one, abs=1e-5)
