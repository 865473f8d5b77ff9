from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emosym.affect import Affect
from emosym.answers import Answer, parse
from emosym.errors import UserError
from emosym.records import Sample
from emosym.rewards import (
    REWARDS,
    VA_THRESHOLD,
    affect_gaussian,
    affect_linear,
    affect_threshold,
    emotion_reward,
    format_reward,
    regression,
    score,
)

GRID = (-3.0, -1.5, 0.0, 1.5, 3.0)
"""EmotiCrafter's test points on each axis."""


def sample(emotion="fear", valence: float | None = -1.0, arousal: float | None = 0.5) -> Sample:
    return Sample(
        id="s7", image=Path("a"), split="train", emotion=emotion, valence=valence, arousal=arousal
    )


@pytest.mark.parametrize(
    ("error", "reward"),
    [(0.0, 1.0), (0.083, 0.5181), (1.0, 0.0), (0.05, 0.38 + 0.6 * math.e**-0.5)],
)
def test_regression_reward_by_hand(error, reward):
    assert regression(error) == pytest.approx(reward, abs=5e-5)


@given(st.floats(0, 1), st.floats(0, 1))
def test_regression_reward_falls_with_the_error(a, b):
    near, far = sorted((a, b))
    assert 0 <= regression(far) <= regression(near) <= 1


def test_a_constant_zero_predictor_is_1_8_off_on_each_axis_of_the_grid():
    zero = Answer(True, valence=0.0, arousal=0.0)
    points = list(product(GRID, GRID))
    assert sum(abs(v) for v, _ in points) / 25 == 1.8
    assert sum(Affect(0, 0).distance(Affect(v, a)) for v, a in points) / 25 == pytest.approx(3.6)
    linear = [affect_linear(zero, sample(None, v, a)) for v, a in points]
    assert sum(linear) / 25 == pytest.approx(1 - (1.8 + 1.8) / 12)


@pytest.mark.parametrize(
    ("valence", "arousal", "reward"),
    [
        (-1.0, 0.5, 1.0),
        (-1.499, 0.999, 1.0),
        (-1.5, 0.5, 0.5),
        (-0.5, 1.0, 0.0),
        (3.0, 0.5, 0.5),
        (None, 0.5, 0.5),
        (None, None, 0.0),
    ],
)
def test_threshold_reward_counts_errors_below_one_half(valence, arousal, reward):
    assert VA_THRESHOLD == 0.5
    answer = Answer(True, valence=valence, arousal=arousal)
    assert affect_threshold(answer, sample()) == reward


@pytest.mark.parametrize(
    ("valence", "arousal", "linear", "gaussian"),
    [
        (-1.0, 0.5, 1.0, 1.0),
        (-1.0 + 0.498, 0.5, 1 - 0.498 / 12, (1 + 0.51807) / 2),
        (2.0, -2.5, 0.5, 0.2),
        (-1.0, None, 0.5, 0.5),
        (None, None, 0.0, 0.0),
    ],
)
def test_graded_rewards_by_hand(valence, arousal, linear, gaussian):
    answer = Answer(True, valence=valence, arousal=arousal)
    assert affect_linear(answer, sample()) == pytest.approx(linear, abs=1e-9)
    assert affect_gaussian(answer, sample()) == pytest.approx(gaussian, abs=2e-5)


def test_the_farthest_answer_earns_nothing():
    worst = Answer(True, valence=3.0, arousal=-3.0)
    corner = sample("fear", -3.0, 3.0)
    assert [affect_linear(worst, corner), affect_threshold(worst, corner)] == [0, 0]
    assert affect_gaussian(worst, corner) == pytest.approx(0, abs=1e-9)


def test_format_and_emotion():
    assert [format_reward(Answer(form), sample()) for form in (True, False)] == [1, 0]
    answers = [Answer(False, "fear"), Answer(True, "awe"), Answer(True)]
    assert [emotion_reward(answer, sample()) for answer in answers] == [1, 0, 0]


def test_score_weighs_and_keeps_the_parts():
    answer = parse("<think>t</think><answer>Emotion: fear; Valence: -1.2; Arousal: 2.5</answer>")
    weights = {"format": 1.0, "emotion": 2.0, "affect_threshold": 0.5}
    assert score(answer, sample(), weights) == {
        "format": 1.0,
        "emotion": 1.0,
        "affect_threshold": 0.5,
        "total": 1 + 2 + 0.25,
    }
    assert score(answer, sample(), {}) == {"total": 0}
    assert score(answer, sample(), {"format": 0.0})["total"] == 0


def test_an_unknown_reward_is_told_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown reward 'emotoin'.*did you mean 'emotion'\?"):
        score(Answer(False), sample(), {"emotoin": 1.0})


@pytest.mark.parametrize("name", ["affect_threshold", "affect_linear", "affect_gaussian"])
@pytest.mark.parametrize("blind", [sample(valence=None), sample(arousal=None)])
def test_a_sample_without_affect_cannot_be_compared_with(name, blind):
    with pytest.raises(UserError, match="sample s7 has no valence and arousal"):
        score(Answer(True, valence=0.0, arousal=0.0), blind, {name: 1.0})


def test_a_sample_without_label_cannot_be_compared_with():
    for answer in (Answer(True), Answer(True, "fear")):
        with pytest.raises(UserError, match="sample s7 has no emotion label"):
            score(answer, sample(None), {"emotion": 1.0})


def test_a_reward_that_is_not_finite_names_its_sample():
    broken = sample(valence=math.nan)
    with pytest.raises(UserError, match=r"'affect_linear' is not finite for sample s7; got nan"):
        score(Answer(True, valence=0.0, arousal=0.0), broken, {"affect_linear": 1.0})


@given(st.sampled_from(sorted(REWARDS)), st.text(), st.floats(-3, 3), st.floats(-3, 3))
def test_every_reward_lies_between_0_and_1(name, text, valence, arousal):
    answer = parse(f"<think></think><answer>{text}; Valence: {valence:.2f}</answer>")
    assert 0 <= REWARDS[name](answer, sample("awe", valence, arousal)) <= 1
