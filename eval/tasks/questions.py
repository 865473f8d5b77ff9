"""The questions of `python -m eval run`: from a file, or built from a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_tools.questions.build import build_questions
from data_tools.questions.eemodb import read_questions
from emosym.errors import UserError
from emosym.records import Question, Sample
from emosym.tasks.registry import TASKS


def is_question_file(data: Path) -> bool:
    """Return whether a path names a file of questions, not a dataset (a manifest is JSON lines)."""
    return data.suffix == ".json"


def named_tasks(listed: str) -> list[str]:
    """Return the names in a list like `valence,ranking`; raise UserError for an unknown task."""
    tasks = [task.strip() for task in listed.split(",") if task.strip()]
    for task in tasks:
        TASKS.look_up(task)
    return tasks


def questions_of_file(path: Path, images: Path | None, tasks: Sequence[str]) -> list[Question]:
    """Return the questions of a file; only those of `tasks` unless that is empty.

    Raises:
        UserError: no folder of images, no question of these tasks, or as `read_questions`.
    """
    if images is None:
        raise UserError(
            f"{path} names images",
            expected="the folder of these images",
            fix="give it with --images",
        )
    questions = read_questions(path, images, "test")
    return _not_empty([q for q in questions if not tasks or q.task in tasks], path, tasks)


def questions_of_split(
    samples: Sequence[Sample], tasks: Sequence[str], seed: int, data: Path
) -> list[Question]:
    """Return the questions of `tasks` built from the test split; raise UserError for none."""
    held_out = [sample for sample in samples if sample.split == "test"]
    return _not_empty(build_questions(held_out, tasks, seed), data, tasks)


def _not_empty(questions: list[Question], data: Path, tasks: Sequence[str]) -> list[Question]:
    if not questions:
        raise UserError(f"{data} has no held-out question of {', '.join(tasks)}")
    return questions
