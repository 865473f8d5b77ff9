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
from emosym.tasks.base import Answer, Answered, Measure
from emosym.tasks.metrics import mean_reward
from emosym.tasks.registry import REWARDS, TASKS
from eval.scores import RESAMPLES, Items, Measured, score
from eval.share import ALONE, Processes, in_batches


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScores:
    """Scores over the questions of one task."""

    count: int
    metrics: dict[str, float | None]
    """`well_formed`, the share of well-formed answers, and the metrics of the task. Shares and
    scores are in [0, 1], errors in units of the questions' scale; None means undefined."""
    intervals: dict[str, tuple[float, float] | None]
    """95 % bootstrap interval of each metric over the questions."""
    items: Items
    """The rows of each metric, for paired comparisons."""

    def to_dict(self) -> dict[str, object]:
        """Return the scores as plain data for a report."""
        return {
            "count": self.count,
            **self.metrics,
            "intervals": self.intervals,
            "items": self.items,
        }


def evaluate_tasks(
    model: QuestionAnswerer,
    questions: Sequence[Question],
    *,
    seed: int,
    lenient: bool = False,
    max_tokens: int | None = None,
    processes: Processes = ALONE,
) -> dict[str, TaskScores]:
    """Let a model answer every question, and score its answers as `score_answers` does.

    `processes` share the questions.
    """
    texts = in_batches(
        questions,
        lambda batch: model.answer(batch, max_tokens=max_tokens),
        what="answering questions",
        processes=processes,
    )
    return score_answers(questions, texts, seed=seed, lenient=lenient)


def score_answers(
    questions: Sequence[Question],
    texts: Sequence[str],
    *,
    seed: int,
    lenient: bool = False,
    resamples: int = RESAMPLES,
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
        found = score(
            [question.id for question, _ in answered],
            _measured(task, answered),
            seed=seed,
            resamples=resamples,
        )
        scores[task] = TaskScores(
            count=len(answered),
            metrics=found.values,
            intervals=found.intervals,
            items=found.items,
        )
    return scores


def _measured(task: str, answered: Answered) -> dict[str, Measured]:
    """Return the metrics of a task with the question of each row.

    A task's `measure` leaves questions out, so each question is also measured alone. A metric whose
    rows are not those of its single questions (classes numbered over all questions) has no places.
    """
    single = [_measures(task, [one]) for one in answered]
    measured = {}
    for name, (metric, *arrays) in _measures(task, answered).items():
        alone = [list(one[name][1:]) if name in one else [] for one in single]
        places = [place for place, rows in enumerate(alone) if rows and len(rows[0])]
        same = all(
            array.tolist() == [alone[place][column][0] for place in places]
            for column, array in enumerate(arrays)
        )
        measured[name] = Measured(metric, tuple(arrays), places if same else None)
    return measured


def _measures(task: str, answered: Answered) -> dict[str, Measure]:
    return {
        "well_formed": mean_reward(REWARDS["format"], answered),
        **TASKS[task].measure(answered),
    }
