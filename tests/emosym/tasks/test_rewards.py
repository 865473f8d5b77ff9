from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emosym.affect.scales import PUBLIC, UNIT, Affect
from emosym.affect.similarity import similarities
from emosym.affect.taxonomies import EKMAN7, MIKELS8
from emosym.errors import UserError
from emosym.records import Question
from emosym.tasks.answers import parse
from emosym.tasks.assessment import (
    THRESHOLD,
    affect_gaussian,
    affect_linear,
    affect_threshold,
    regression,
)
from emosym.tasks.base import Answer
from emosym.tasks.dominant import emotion_reward, similarity_reward, similarity_sentence
from emosym.tasks.perception import option_reward
from emosym.tasks.ranking import ranking_reward
from emosym.tasks.registry import REWARDS, score
from emosym.tasks.rewards import format_reward, length_reward

GRID = (-3.0, -1.5, 0.0, 1.5, 3.0)
"""EmotiCrafter's test points on each axis."""


def make_question(truth: dict, labels=MIKELS8, scale=PUBLIC, options=()) -> Question:
    return Question(
        id="q7",
        task="affect",
        images=(Path("a"),),
        split="train",
        text="?",
        truth=truth,
        labels=labels,
        scale=scale,
        options=dict.fromkeys(options, "text"),
    )


def sample(emotion="fear", valence: float | None = -1.0, arousal: float | None = 0.5) -> Question:
    truth = {"emotion": emotion, "valence": valence, "arousal": arousal}
    return make_question({key: value for key, value in truth.items() if value is not None})


def says(form: bool, emotion=None, valence=None, arousal=None) -> Answer:
    prediction = {"emotion": emotion, "valence": valence, "arousal": arousal}
    return Answer(form, {key: value for key, value in prediction.items() if value is not None})


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
    zero = says(True, valence=0.0, arousal=0.0)
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
    assert THRESHOLD * 6 == 0.5
    answer = says(True, valence=valence, arousal=arousal)
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
    answer = says(True, valence=valence, arousal=arousal)
    assert affect_linear(answer, sample()) == pytest.approx(linear, abs=1e-9)
    assert affect_gaussian(answer, sample()) == pytest.approx(gaussian, abs=2e-5)


def test_the_farthest_answer_earns_nothing():
    worst = says(True, valence=3.0, arousal=-3.0)
    corner = sample("fear", -3.0, 3.0)
    assert [affect_linear(worst, corner), affect_threshold(worst, corner)] == [0, 0]
    assert affect_gaussian(worst, corner) == pytest.approx(0, abs=1e-9)


def test_format_and_emotion():
    assert [format_reward(says(form), sample()) for form in (True, False)] == [1, 0]
    answers = [says(False, "fear"), says(True, "awe"), says(True)]
    assert [emotion_reward(answer, sample()) for answer in answers] == [1, 0, 0]


def test_score_weighs_and_keeps_the_parts():
    text = "<think>t</think><answer>Emotion: fear; Valence: -1.2; Arousal: 2.5</answer>"
    answer = parse(text, sample())
    weights = {"format": 1.0, "emotion": 2.0, "affect_threshold": 0.5}
    assert score(answer, sample(), weights) == {
        "format": 1.0,
        "emotion": 1.0,
        "affect_threshold": 0.5,
        "total": 1 + 2 + 0.25,
    }
    assert score(answer, sample(), {}) == {"total": 0}
    assert score(answer, sample(), {"format": 0.0})["total"] == 0


def test_an_unknown_reward_suggests_the_nearest():
    with pytest.raises(UserError, match=r"unknown reward 'emotoin'.*did you mean 'emotion'\?"):
        score(says(False), sample(), {"emotoin": 1.0})


@pytest.mark.parametrize("name", ["affect_threshold", "affect_linear", "affect_gaussian"])
def test_only_coordinates_that_are_asked_count(name):
    """One axis, as EEmo-Logic asks: its error alone decides; on [0, 1] as on [-3, 3]."""
    one = make_question({"valence": 0.5}, scale=UNIT)
    six = make_question({"valence": 0.0})
    for prediction, reward in (
        (0.5, 1.0),
        (0.583, REWARDS[name].score(says(True, valence=0.498), six)),
    ):
        answer = Answer(True, {"valence": prediction, "arousal": 0.9})
        assert REWARDS[name].score(answer, one) == pytest.approx(reward, abs=1e-9)


def test_a_reward_counts_only_where_the_question_has_its_truth():
    blind = sample(emotion=None)
    weights = {"format": 1.0, "emotion": 1.0, "affect_linear": 1.0, "ranking": 1.0, "option": 1.0}
    parts = score(says(True, "fear", -1.0, 0.5), blind, weights)
    assert parts == {"format": 1, "affect_linear": 1, "total": 2}


def test_published_rewards():
    """Worked examples of EEmo-Logic: regression 0.625 vs 0.7083, a ranking, two confusions."""
    near = Answer(True, {"valence": 0.625})
    assert affect_gaussian(near, make_question({"valence": 0.7083}, scale=UNIT)) == pytest.approx(
        0.5165, abs=5e-4
    )
    true = make_question({"emotion ranking": ("fear", "anger", "neutral")}, labels=EKMAN7)
    prediction = Answer(True, {"emotion ranking": ("fear", "disgust", "neutral")})
    assert ranking_reward(prediction, true) == pytest.approx(0.6833, abs=5e-5)
    assert ranking_reward(Answer(True), true) == 0


def test_a_near_miss_earns_a_little():
    fear = make_question({"dominant emotion": "fear"})
    earned = {
        name: similarity_reward(Answer(True, {"dominant emotion": name}), fear) for name in MIKELS8
    }
    assert earned["fear"] == 1
    assert earned["anger"] == max(value for name, value in earned.items() if name != "fear")
    assert earned["anger"] > 0.3 > 0.1 > earned["contentment"]
    assert similarity_reward(Answer(True), fear) == 0
    # Of the norms alone: 1 - d / d_max, to the power three.
    gap = 0.5 * 0.43**2 + 0.3 * 0.21**2 + 0.2 * 1.82**2
    far = max(
        0.5 * (2.93 - v) ** 2 + 0.3 * (6.14 - a) ** 2 + 0.2 * (3.32 - d) ** 2
        for v, a, d in ((7.0, 4.82, 6.59), (6.62, 4.6, 6.58), (7.62, 6.21, 6.33))
    )
    assert earned["anger"] == pytest.approx((1 - (gap / far) ** 0.5) ** 3)


def test_definitions_lower_what_a_near_miss_earns():
    fear = make_question({"dominant emotion": "fear"}, labels=EKMAN7)
    miss, hit = (Answer(True, {"dominant emotion": name}) for name in ("anger", "fear"))
    matrix = similarities(EKMAN7, definitions=True)
    earned = similarity_sentence(miss, fear)
    assert earned == matrix[EKMAN7.index("fear"), EKMAN7.index("anger")]
    assert 0 < earned < similarity_reward(miss, fear)
    assert [similarity_sentence(answer, fear) for answer in (hit, Answer(True))] == [1, 0]


def test_options():
    choice = make_question({"answer": "B"}, options="AB")
    prediction = [Answer(True, {"answer": letter}) for letter in "BA"]
    assert [option_reward(answer, choice) for answer in [*prediction, Answer(True)]] == [1, 0, 0]


@pytest.mark.parametrize(("fill", "reward"), [(0.1, 0), (0.8, 0), (0.9, -0.5), (1.0, -1)])
def test_an_answer_may_fill_four_fifths_of_its_room(fill, reward):
    answer = Answer(True, {}, fill)
    assert length_reward(answer, sample()) == pytest.approx(reward)


def test_a_reward_that_is_not_finite_names_its_question():
    broken = sample(valence=math.nan)
    with pytest.raises(UserError, match=r"'affect_linear' is not finite for q7; got nan"):
        score(says(True, valence=0.0, arousal=0.0), broken, {"affect_linear": 1.0})


@given(st.sampled_from(sorted(REWARDS)), st.text(), st.floats(-3, 3), st.floats(-3, 3))
def test_every_reward_lies_between_0_and_1(name, text, valence, arousal):
    truth = {
        "emotion": "awe",
        "valence": valence,
        "arousal": arousal,
        "emotion ranking": ("awe", "fear", "anger"),
        "answer": "A",
    }
    question = make_question(truth, options="AB")
    facts = f"{text}; Valence: {valence:.2f}; Emotion: fear; Emotion ranking: fear, awe; Answer: A"
    answer = parse(f"<think></think><answer>{facts}</answer>", question)
    assert 0 <= REWARDS[name].score(answer, question) <= 1
