"""Verifiable rewards: small pure functions of (answer, sample), combined by named weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from emosym.affect import PUBLIC
from emosym.answers import Answer
from emosym.errors import UserError, unknown
from emosym.records import Sample

Reward = Callable[[Answer, Sample], float]

VA_THRESHOLD = 0.5
"""ε_r of EmoFeedback² in units of [-3, 3]; not published, Q-Insight's share of the range."""


def format_reward(answer: Answer, sample: Sample) -> float:
    """Return 1 for `<think>…</think><answer>…</answer>` with facts that parse, else 0."""
    return float(answer.well_formed)


def emotion_reward(answer: Answer, sample: Sample) -> float:
    """Return 1 when the label is right, else 0. Needs a labelled sample."""
    return float(answer.emotion is not None and answer.emotion == sample.emotion)


def affect_threshold(answer: Answer, sample: Sample) -> float:
    """Return the mean of two hits |v̂ - v| < ε_r, |â - a| < ε_r, in {0, 0.5, 1}.

    Ref: EmoFeedback² (arXiv 2511.19982), threshold reward.
    """
    return sum(_near(error, VA_THRESHOLD) for error in _errors(answer, sample)) / 2


def affect_linear(answer: Answer, sample: Sample) -> float:
    """Return 1 - (|v̂ - v| + |â - a|) / 12, in [0, 1]; 0 for a coordinate not given."""
    return sum(1 - error / 6 if error is not None else 0.0 for error in _errors(answer, sample)) / 2


def affect_gaussian(answer: Answer, sample: Sample) -> float:
    """Return the mean over V and A of `regression`, errors in shares of the range."""
    return (
        sum(
            regression(error / 6) if error is not None else 0.0 for error in _errors(answer, sample)
        )
        / 2
    )


def regression(error: float) -> float:
    """Return R(e) = 0.4 (1 - e) + 0.6 exp(-e² / (2 · 0.05²)) for e in [0, 1].

    Ref: EEmo-Logic (arXiv 2602.01173), stage 2 regression reward.
    """
    return 0.4 * (1 - error) + 0.6 * math.exp(-(error**2) / (2 * 0.05**2))


REWARDS: dict[str, Reward] = {
    "format": format_reward,
    "emotion": emotion_reward,
    "affect_threshold": affect_threshold,
    "affect_linear": affect_linear,
    "affect_gaussian": affect_gaussian,
}


def score(answer: Answer, sample: Sample, weights: Mapping[str, float]) -> dict[str, float]:
    """Return each named reward and their weighted sum under `total`.

    Raises:
        UserError: an unknown reward, or a reward that is not finite (names the sample).
    """
    parts: dict[str, float] = {}
    for name in weights:
        if name not in REWARDS:
            raise unknown("reward", name, REWARDS)
        parts[name] = REWARDS[name](answer, sample)
        if not math.isfinite(parts[name]):
            raise UserError(
                f"reward {name!r} is not finite for sample {sample.id}", got=parts[name]
            )
    parts["total"] = sum(weight * parts[name] for name, weight in weights.items())
    return parts


def _errors(answer: Answer, sample: Sample) -> list[float | None]:
    if sample.valence is None or sample.arousal is None:
        raise UserError(
            f"sample {sample.id} has no valence and arousal, which this reward compares with",
            fix="use rewards 'format' and 'emotion' only, or a dataset with V/A",
        )
    span = PUBLIC.high - PUBLIC.low
    pairs = ((answer.valence, sample.valence), (answer.arousal, sample.arousal))
    return [min(abs(said - true), span) if said is not None else None for said, true in pairs]


def _near(error: float | None, bound: float) -> float:
    return float(error is not None and error < bound)
