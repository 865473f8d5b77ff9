"""Building questions from samples, as far as the samples' annotations answer them.

Ref: EEmo-Logic (arXiv 2602.01173) names the tasks; its generator is not published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from data_tools.affectworld.critique import criticise_questions, rewrite_questions
from emosym.errors import UserError
from emosym.records import Question, Sample
from emosym.tasks.base import Build
from emosym.tasks.registry import TASKS

WORLD_BUILDERS: Mapping[str, Build] = {
    "criticise": criticise_questions,
    "rewrite": rewrite_questions,
}
"""Builders of tasks whose `Task.build` is None: they need AffectWorld's vocabulary."""


def build_questions(
    samples: Sequence[Sample], tasks: Sequence[str], seed: int, *, reasons: bool = True
) -> list[Question]:
    """Return the questions of the named tasks, all of one task before the next.

    A sample without the annotations that a question needs is left out. Random choices (pairs,
    options) depend on the seed and the ids, not on the order of `samples`. Without `reasons`, the
    reference answers have an empty `<think></think>`.

    Raises:
        UserError: an unknown task, or one whose questions are not built from samples.
    """
    questions: list[Question] = []
    for task in tasks:
        questions += builder(task)(samples, seed)
    return questions if reasons else [replace(q, answer=_without_reason(q)) for q in questions]


def builder(task: str) -> Build:
    """Return what builds the questions of a task.

    Raises:
        UserError: an unknown task, or one whose questions are not built from samples.
    """
    build = TASKS.look_up(task).build or WORLD_BUILDERS.get(task)
    if build is None:
        raise UserError(
            f"the questions of the task {task!r} are not built from samples",
            fix="ask questions of this task from a file",
        )
    return build


def buildable_tasks() -> list[str]:
    """Return the tasks whose questions are built from samples, in the order of `TASKS`."""
    return [name for name, task in TASKS.items() if task.build or name in WORLD_BUILDERS]


def _without_reason(question: Question) -> str:
    return TASKS[question.task].reply(question.truth, question.scale)
