"""Which questions `python -m eval` asks: those of a file, or those that a dataset can answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_tools.questions.build import build_questions
from data_tools.questions.eemodb import read_questions
from emosym.errors import UserError, unknown
from emosym.records import Question, Sample
from emosym.tasks import prompts


def is_question_file(data: Path) -> bool:
    """Tell a file of questions from a dataset; a manifest is JSON lines."""
    return data.suffix == ".json"


def named_tasks(listed: str) -> list[str]:
    """Return the tasks of a list like `valence,ranking`; raise UserError for an unknown one."""
    tasks = [task.strip() for task in listed.split(",") if task.strip()]
    for task in tasks:
        if task not in prompts.TASKS:
            raise unknown("task", task, prompts.TASKS)
    return tasks


def questions_of_file(path: Path, images: Path | None, tasks: Sequence[str]) -> list[Question]:
    """Return the questions of a file, only those of `tasks` where any is named.

    Raises:
        UserError: no folder of images, none of these tasks, or as `read_questions`.
    """
    if images is None:
        raise UserError(
            f"{path} names images", expected="the folder they are in", fix="give it with --images"
        )
    questions = read_questions(path, images, "test")
    return _some([q for q in questions if not tasks or q.task in tasks], path, tasks)


def questions_of_split(
    samples: Sequence[Sample], tasks: Sequence[str], seed: int, data: Path
) -> list[Question]:
    """Return the questions of `tasks` that the test split answers; raise UserError for none."""
    held_out = [sample for sample in samples if sample.split == "test"]
    return _some(build_questions(held_out, tasks, seed), data, tasks)


def _some(questions: list[Question], data: Path, tasks: Sequence[str]) -> list[Question]:
    if not questions:
        raise UserError(f"{data} has no held-out question of {', '.join(tasks)}")
    return questions
