"""How well a model answers questions in words: EEmo-Logic's tasks, each by its own metrics.

Ref: EEmo-Bench (arXiv 2504.16405) and EEmo-Logic (arXiv 2602.01173), evaluation. What an answer
says and what it is worth is read by the parser and the rewards of training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from emosym.errors import UserError, unknown
from emosym.inference.refine import lost_content
from emosym.interfaces import QuestionAnswerer
from emosym.records import Question
from emosym.tasks.answers import Answer, parse
from emosym.tasks.rewards import REWARDS
from eval.metrics import statistics as metrics

Asked = Sequence[tuple[Question, Answer]]
"""Questions of one task with what was read of their answers."""
Measure = tuple[metrics.Metric, *tuple[NDArray, ...]]
"""A metric and its arrays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScores:
    """Scores over the questions of one task."""

    count: int
    metrics: dict[str, float | None]
    """`well_formed`, the share of answers in the form asked for, and the task's own. Shares and
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
    """Ask a model every question and score its answers as `score_answers`."""
    said = model.answer(questions, max_tokens=max_tokens)
    return score_answers(questions, said, seed=seed, lenient=lenient)


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
        questions: of any tasks; what is not known of an answer is not scored.
        texts: the answers.
        seed: of the bootstrap.
        lenient: read free words too, for models that were never taught the form.
        resamples: of the bootstrap.

    Raises:
        UserError: no question, an unknown task, ratings of one task on different scales.
    """
    if not questions:
        raise UserError("no question to evaluate", got="0 questions", expected="at least one")
    tasks: dict[str, list[tuple[Question, Answer]]] = {}
    for question, text in zip(questions, texts, strict=True):
        if question.task not in MEASURES:
            raise unknown("task", question.task, MEASURES)
        answer = parse(text, question, lenient=lenient)
        tasks.setdefault(question.task, []).append((question, answer))
    scores = {}
    for task, asked in tasks.items():
        measured = {"well_formed": _reward("format", asked)} | MEASURES[task](asked)
        scores[task] = TaskScores(
            count=len(asked),
            metrics={name: metric(*arrays) for name, (metric, *arrays) in measured.items()},
            intervals={
                name: metrics.bootstrap(metric, *arrays, seed=seed, resamples=resamples)
                for name, (metric, *arrays) in measured.items()
            },
        )
    return scores


def _reward(name: str, asked: Asked) -> Measure:
    """Measure the mean of a reward over the questions that can earn it."""
    reward = REWARDS[name]
    worth = [reward.score(a, q) for q, a in asked if reward.applies(q)]
    return metrics.mean, np.array(worth)


def _affect(asked: Asked) -> dict[str, Measure]:
    errors = {f"{axis}_mae": _rating(axis, asked)["mae"] for axis in ("valence", "arousal")}
    return {"accuracy": _reward("emotion", asked)} | errors


def _rating(axis: str, asked: Asked) -> dict[str, Measure]:
    """Correlations and error over the answers that gave a number, and the share that did."""
    rated = [(q, a) for q, a in asked if axis in q.truth]
    scales = {str(question.scale) for question, _ in rated}
    if len(scales) > 1:
        raise UserError(
            f"questions about {axis} on different scales", got=" and ".join(sorted(scales))
        )
    numbers = [(a.said[axis], q.truth[axis]) for q, a in rated if axis in a.said]
    told, felt = np.array(numbers, dtype=np.float64).reshape(-1, 2).T
    return {
        "srcc": (metrics.spearman, told, felt),
        "plcc": (metrics.pearson, told, felt),
        "mae": (metrics.mae, told, felt),
        "answered": (metrics.mean, np.array([float(axis in a.said) for _, a in rated])),
    }


def _ranking(asked: Asked) -> dict[str, Measure]:
    return {"score": _reward("ranking", asked)}


def _dominant(asked: Asked) -> dict[str, Measure]:
    """An answer that names no label is wrong, and no label of its own."""
    key = "dominant emotion"
    known = [(q, a) for q, a in asked if key in q.truth]
    names = sorted({name for question, _ in known for name in question.labels})
    places = {name: place for place, name in enumerate(names)}
    predicted = np.array([places.get(a.said.get(key), len(names)) for _, a in known], dtype=int)
    true = np.array([places[q.truth[key]] for q, _ in known], dtype=int)
    return {
        "accuracy": _reward("emotion", asked),
        "similarity": _reward("similarity", asked),
        "macro_f1": (partial(metrics.macro_f1, classes=len(names)), predicted, true),
    }


def _perception(asked: Asked) -> dict[str, Measure]:
    """Accuracy, an unread answer being wrong: of all, and of each group that has a question."""
    groups: dict[str, list[tuple[Question, Answer]]] = {}
    for question, answer in asked:
        number = "single" if len(question.images) == 1 else "pair"
        choices = {text.strip(" .").lower() for text in question.options.values()}
        kind = "yes_no" if choices == {"yes", "no"} else "what_how"
        for name in filter(None, (number, f"{number}_{kind}", question.aspect)):
            groups.setdefault(name, []).append((question, answer))
    split = {name: _reward("option", groups[name]) for name in sorted(groups)}
    return {"accuracy": _reward("option", asked)} | split


def _description(asked: Asked) -> dict[str, Measure]:
    """Likeness to the reference where there is one; EEmo-Bench's judges are not here."""
    key = "description"
    known = [(a.said.get(key, ""), q.truth[key]) for q, a in asked if key in q.truth]
    said, references = [text for text, _ in known], [reference for _, reference in known]
    return {"chrf": (metrics.mean, metrics.chrf(said, references))}


def _criticise(asked: Asked) -> dict[str, Measure]:
    """The words that an answer's suggestions share with the truth, of all that either says."""
    key = "suggestions"
    words = [({*a.said.get(key, ())}, {*q.truth[key]}) for q, a in asked if key in q.truth]
    shares = [len(said & true) / len(said | true) for said, true in words]
    return {key: (metrics.mean, np.array(shares))}


def _rewrite(asked: Asked) -> dict[str, Measure]:
    """Prompts that are the reference to the letter, and prompts that say all of its words."""
    known = [(a.said.get("prompt", ""), q.truth["prompt"]) for q, a in asked if "prompt" in q.truth]
    exact = [float(said == true) for said, true in known]
    whole = [float(not lost_content(true, said)) for said, true in known]
    return {"exact": (metrics.mean, np.array(exact)), "kept": (metrics.mean, np.array(whole))}


MEASURES: dict[str, Callable[[Asked], dict[str, Measure]]] = {
    "affect": _affect,
    "valence": partial(_rating, "valence"),
    "arousal": partial(_rating, "arousal"),
    "dominance": partial(_rating, "dominance"),
    "ranking": _ranking,
    "dominant": _dominant,
    "perception": _perception,
    "description": _description,
    "criticise": _criticise,
    "rewrite": _rewrite,
}
"""Task -> what measures it; each of `prompts.TASKS`."""
