"""Verifiable rewards: small pure functions of (answer, question), combined by named weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from emosym.affect.ranking import ranking_score
from emosym.affect.similarity import similarities
from emosym.errors import UserError, unknown
from emosym.records import Question
from emosym.tasks.answers import Answer

AXES = ("valence", "arousal", "dominance")
LABELS = ("emotion", "dominant emotion")

THRESHOLD = 0.5 / 6
"""ε_r of EmoFeedback² as a share of the scale (0.5 on [-3, 3]); not published, this is Q-Insight's
share."""
OVERLONG = 0.2
"""Last share of the length allowed in which an answer is too long. Ref: DAPO, 4096 of 20480."""


def format_reward(answer: Answer, question: Question) -> float:
    """Return 1 for `<think>…</think><answer>…</answer>` that says all it should, else 0."""
    return float(answer.well_formed)


def emotion_reward(answer: Answer, question: Question) -> float:
    """Return 1 when the label is right, else 0."""
    said, true = _label(answer, question)
    return float(said == true)


def similarity_reward(answer: Answer, question: Question) -> float:
    """Return R[true][said] in [0, 1]: a near miss earns a little; 0 for an unsaid label.

    Ref: EEmo-Logic (arXiv 2602.01173), stage 2 similarity reward, of the words' norms alone.
    """
    return _similarity(answer, question, definitions=False)


def similarity_sentence(answer: Answer, question: Question) -> float:
    """Return R[true][said] as `similarity_reward`, of the words' norms and definitions.

    Ref: EEmo-Logic (arXiv 2602.01173), stage 2: its formula, with our definitions and a small
    sentence encoder.
    """
    return _similarity(answer, question, definitions=True)


def affect_threshold(answer: Answer, question: Question) -> float:
    """Return the share of asked coordinates whose error is below ε_r, in [0, 1].

    Ref: EmoFeedback² (arXiv 2511.19982), threshold reward.
    """
    return _mean(answer, question, hit)


def affect_linear(answer: Answer, question: Question) -> float:
    """Return the mean of 1 - error over asked coordinates; 0 for a coordinate not given."""
    return _mean(answer, question, linear)


def affect_gaussian(answer: Answer, question: Question) -> float:
    """Return the mean of `regression` over asked coordinates; 0 for a coordinate not given."""
    return _mean(answer, question, regression)


def hit(error: float) -> float:
    """Return 1 for an error in [0, 1] below ε_r, else 0."""
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
"""What an error is worth, a share of the scale in [0, 1]; 1 for none."""


def ranking_reward(answer: Answer, question: Question) -> float:
    """Return `ranking_score` of the three strongest emotions, in [0, 1]."""
    return ranking_score(question.truth["emotion ranking"], answer.said.get("emotion ranking", ()))


def option_reward(answer: Answer, question: Question) -> float:
    """Return 1 for the right letter, else 0."""
    return float(answer.said.get("answer") == question.truth["answer"])


def length_reward(answer: Answer, question: Question) -> float:
    """Return 0, falling to -1 over the last fifth of the length allowed. Ref: DAPO eq. 13."""
    return -max(0.0, answer.fill - (1 - OVERLONG)) / OVERLONG


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward, and which questions it is about."""

    score: Callable[[Answer, Question], float]
    keys: tuple[str, ...] = ()
    """It counts for questions whose truth has one of these; for all when empty."""

    def applies(self, question: Question) -> bool:
        """Tell whether a question can earn it."""
        return not self.keys or any(key in question.truth for key in self.keys)


REWARDS = {
    "format": Reward(format_reward),
    "emotion": Reward(emotion_reward, LABELS),
    "similarity": Reward(similarity_reward, LABELS),
    "similarity_sentence": Reward(similarity_sentence, LABELS),
    "affect_threshold": Reward(affect_threshold, AXES),
    "affect_linear": Reward(affect_linear, AXES),
    "affect_gaussian": Reward(affect_gaussian, AXES),
    "ranking": Reward(ranking_reward, ("emotion ranking",)),
    "option": Reward(option_reward, ("answer",)),
    "length": Reward(length_reward),
}


def score(answer: Answer, question: Question, weights: Mapping[str, float]) -> dict[str, float]:
    """Return each named reward that the question can earn, and their weighted sum under `total`.

    Raises:
        UserError: an unknown reward, or a reward that is not finite (names the question).
    """
    parts: dict[str, float] = {}
    for name in weights:
        if name not in REWARDS:
            raise unknown("reward", name, REWARDS)
        if not REWARDS[name].applies(question):
            continue
        parts[name] = REWARDS[name].score(answer, question)
        if not math.isfinite(parts[name]):
            raise UserError(f"reward {name!r} is not finite for {question.id}", got=parts[name])
    parts["total"] = sum(weights[name] * value for name, value in parts.items())
    return parts


def _label(answer: Answer, question: Question) -> tuple[str | None, str]:
    key = next(key for key in LABELS if key in question.truth)
    return answer.said.get(key), question.truth[key]


def _similarity(answer: Answer, question: Question, *, definitions: bool) -> float:
    said, true = _label(answer, question)
    if said is None:
        return 0.0
    place = question.labels.index
    matrix = similarities(question.labels, definitions=definitions)
    return float(matrix[place(true), place(said)])


def _mean(answer: Answer, question: Question, worth: Callable[[float], float]) -> float:
    """Return the mean worth of the errors, in shares of the scale, over asked coordinates."""
    span = question.scale.high - question.scale.low
    asked = [axis for axis in AXES if axis in question.truth]
    errors = [abs(answer.said[a] - question.truth[a]) / span for a in asked if a in answer.said]
    return sum(map(worth, errors)) / len(asked)
