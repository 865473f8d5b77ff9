"""Evaluation of answers to questions: the metrics of every task, with confidence intervals.

Ref: EEmo-Bench (arXiv 2504.16405) and EEmo-Logic (arXiv 2602.01173), evaluation. The parser and the
rewards are the same as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emosym.errors import UserError
from emosym.interfaces import QuestionAnswerer
from emosym.records import Question
from emosym.tasks.answers import parse
from emosym.tasks.base import Answer
from emosym.tasks.metrics import bootstrap, mean_reward
from emosym.tasks.registry import REWARDS, TASKS


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScores:
    """Scores over the questions of one task."""

    count: int
    metrics: dict[str, float | None]
    """`well_formed`, the share of well-formed answers, and the metrics of the task. Shares and
    scores are in [0, 1], errors in units of the questions' scale; None means undefined."""
    intervals: dict[str, tuple[float, float] | None]
    """95 % bootstrap interval of each metric over the questions."""

    def to_dict(self) -> dict[str, object]:
        """Return the scores as plain data for a report."""
        return {"count": self.count, **self.metrics, "intervals": self.intervals}


def evaluate_tasks(
    model: QuestionAnswerer,
    questions: Sequence[Question],
    *,
    seed: int,
    lenient: bool = False,
    max_tokens: int | None = None,
) -> dict[str, TaskScores]:
    """Let a model answer every question, and score its answers as `score_answers` does."""
    texts = model.answer(questions, max_tokens=max_tokens)
    return score_answers(questions, texts, seed=seed, lenient=lenient)


def score_answers(
    questions: Sequence[Question],
    texts: Sequence[str],
    *,
    seed: int,
    lenient: bool = False,
    resamples: int = 500,
) -> dict[str, TaskScores]:
    """Return the scores of each task among the questions, in the order of their first question.

    Args:
        questions: of any tasks; a key without a truth is not scored.
        texts: the answers, one for each question.
        seed: of the bootstrap.
        lenient: also parse free text, for models that were not trained on the form.
        resamples: of the bootstrap.

    Raises:
        UserError: no question, an unknown task, ratings of one task on different scales.
    """
    if not questions:
        raise UserError("no question to evaluate", got="0 questions", expected="at least one")
    by_task: dict[str, list[tuple[Question, Answer]]] = {}
    for question, text in zip(questions, texts, strict=True):
        TASKS.look_up(question.task)
        answer = parse(text, question, lenient=lenient)
        by_task.setdefault(question.task, []).append((question, answer))
    scores = {}
    for task, answered in by_task.items():
        measures = {"well_formed": mean_reward(REWARDS["format"], answered)}
        measures |= TASKS[task].measure(answered)
        scores[task] = TaskScores(
            count=len(answered),
            metrics={name: metric(*arrays) for name, (metric, *arrays) in measures.items()},
            intervals={
                name: bootstrap(metric, *arrays, seed=seed, resamples=resamples)
                for name, (metric, *arrays) in measures.items()
            },
        )
    return scores
