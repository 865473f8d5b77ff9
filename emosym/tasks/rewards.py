"""Rewards that apply to every question: the form and the length of an answer."""

from __future__ import annotations

from emosym.records import Question
from emosym.tasks.base import Answer, Reward

OVERLONG = 0.2
"""Share of the length limit, at its end, in which an answer is penalised. Ref: DAPO (arXiv
2503.14476), 4096 of 20480 tokens."""


def format_reward(answer: Answer, question: Question) -> float:
    """Return 1 for a well-formed `<think>…</think><answer>…</answer>`, else 0."""
    return float(answer.well_formed)


def length_reward(answer: Answer, question: Question) -> float:
    """Return 0, falling to -1 over the last fifth of the length allowed.

    Ref: DAPO (arXiv 2503.14476), eq. 13.
    """
    return -max(0.0, answer.fill - (1 - OVERLONG)) / OVERLONG


FORMAT = Reward(format_reward)
LENGTH = Reward(length_reward)
