"""Tasks `valence`, `arousal` and `dominance`: a rating in [0, 1].

Ref: EEmo-Logic (arXiv 2602.01173), assessment task; EEmo-Bench (arXiv 2504.16405).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import numpy as np

from emosym.affect.scales import PUBLIC, UNIT
from emosym.errors import UserError
from emosym.records import Question, Sample
from emosym.tasks import metrics
from emosym.tasks.base import (
    ANSWER_FORM,
    Answer,
    Answered,
    Measure,
    Reader,
    Reward,
    Task,
    Value,
    each_sample,
)

AXES = ("valence", "arousal", "dominance")

THRESHOLD = 0.5 / 6
"""ε_r of EmoFeedback² as a share of the scale (0.5 on [-3, 3]); not published, this is Q-Insight's
share."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{1,6})?")
_NUMBER_IN_TEXT = re.compile(r"(?<![0-9.])-?[0-9]{1,3}(?:\.[0-9]{1,6})?(?![0-9])")


def assessment_prompt(axis: str) -> str:
    """Return the question for a rating of valence, arousal or dominance in [0, 1]."""
    return f"Rate the {axis} that this image evokes, from 0 to 1. " + ANSWER_FORM.format(
        f"{axis.capitalize()}: x.xxxx"
    )


def read_number(text: str, question: Question) -> float | None:
    """Parse a plain decimal number on the question's scale."""
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    inside = question.scale.low <= number <= question.scale.high
    return number if math.isfinite(number) and inside else None


def find_number(text: str, question: Question) -> float | None:
    """Return the first number in free text that lies on the question's scale."""
    numbers = (read_number(found, question) for found in _NUMBER_IN_TEXT.findall(text))
    return next((number for number in numbers if number is not None), None)


NUMBER = Reader(read_number, find_number)


def hit(error: float) -> float:
    """Return 1 for an error in [0, 1] below `THRESHOLD`, else 0."""
    return float(error < THRESHOLD)


def linear(error: float) -> float:
    """Return 1 - e for e in [0, 1]."""
    return 1 - error


def regression(error: float) -> float:
    """Return R(e) = 0.4 (1 - e) + 0.6 exp(-e² / (2 · 0.05²)) for e in [0, 1].

    Ref: EEmo-Logic (arXiv 2602.01173), stage 2 regression reward.
    """
    return 0.4 * (1 - error) + 0.6 * math.exp(-(error**2) / (2 * 0.05**2))


SHAPES = {"linear": linear, "threshold": hit, "gauss": regression}
"""Name -> reward of an error that is a share of the scale, in [0, 1]; 1 for no error."""


def affect_threshold(answer: Answer, question: Question) -> float:
    """Return the share of the question's axes whose error is below ε_r, in [0, 1].

    Ref: EmoFeedback² (arXiv 2511.19982), threshold reward.
    """
    return _mean_over_axes(answer, question, hit)


def affect_linear(answer: Answer, question: Question) -> float:
    """Return the mean of 1 - error over the question's axes; 0 for an axis without a number."""
    return _mean_over_axes(answer, question, linear)


def affect_gaussian(answer: Answer, question: Question) -> float:
    """Return the mean of `regression` over the question's axes; 0 for an axis without a number."""
    return _mean_over_axes(answer, question, regression)


RATING_REWARDS = {
    "affect_threshold": Reward(affect_threshold, AXES),
    "affect_linear": Reward(affect_linear, AXES),
    "affect_gaussian": Reward(affect_gaussian, AXES),
}


def rating_measures(axis: str, answered: Answered) -> dict[str, Measure]:
    """Return correlations and error over the answers with a number, and the share that have one.

    Raises:
        UserError: the questions are on different scales.
    """
    rated = [(q, a) for q, a in answered if axis in q.truth]
    scales = {str(question.scale) for question, _ in rated}
    if len(scales) > 1:
        raise UserError(
            f"questions about {axis} on different scales", got=" and ".join(sorted(scales))
        )
    pairs = [
        (_number(a.values[axis]), _number(q.truth[axis])) for q, a in rated if axis in a.values
    ]
    predictions, targets = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return {
        "srcc": (metrics.spearman, predictions, targets),
        "plcc": (metrics.pearson, predictions, targets),
        "mae": (metrics.mae, predictions, targets),
        "answered": (metrics.mean, np.array([float(axis in a.values) for _, a in rated])),
    }


def _mean_over_axes(answer: Answer, question: Question, reward: Callable[[float], float]) -> float:
    """Return the mean reward over the question's axes; errors are shares of the scale."""
    span = question.scale.high - question.scale.low
    axes = [axis for axis in AXES if axis in question.truth]
    errors = [
        abs(_number(answer.values[axis]) - _number(question.truth[axis])) / span
        for axis in axes
        if axis in answer.values
    ]
    return sum(map(reward, errors)) / len(axes)


def _number(value: Value) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {value!r:.40}")
    return value


def _ask(axis: str, sample: Sample) -> Question | None:
    """Ask for the rating of one axis, on [0, 1] with four decimals; None where it is unknown."""
    value = getattr(sample, axis)
    if value is None:
        return None
    truth = {axis: round(PUBLIC.convert(value, UNIT), 4)}
    return BY_AXIS[axis].question(sample, truth, reason=sample.knowledge)


def _task(axis: str) -> Task:
    return Task(
        name=axis,
        title=f"{axis} rating",
        prompt=assessment_prompt(axis),
        readers={axis: NUMBER},
        build=each_sample(partial(_ask, axis)),
        rewards=RATING_REWARDS,
        measure=partial(rating_measures, axis),
        metrics={
            "srcc": ("SRCC", "higher"),
            "plcc": ("PLCC", "higher"),
            "mae": ("MAE, on the question's scale", "lower"),
            "answered": ("answers that give a number", "higher"),
        },
    )


VALENCE, AROUSAL, DOMINANCE = (_task(axis) for axis in AXES)
BY_AXIS = {"valence": VALENCE, "arousal": AROUSAL, "dominance": DOMINANCE}
