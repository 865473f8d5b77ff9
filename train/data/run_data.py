"""The data that a run trains on and is evaluated on: samples, and questions about images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from data_tools.labels.lexicon import with_lexicon_affect
from data_tools.questions.build import build_questions
from data_tools.questions.eemodb import read_questions
from emosym.console.progress import progress
from emosym.errors import UserError
from emosym.records import Question, Sample
from train.config import RunConfig
from train.distributed import ranks


@dataclass(frozen=True, slots=True)
class RunData:
    """All splits of a run's data."""

    samples: list[Sample]
    questions: list[Question]

    def held_out(self, count: int) -> list[Question]:
        """Return up to `count` test questions of each task, spread over the order of their ids."""
        tasks: dict[str, list[Question]] = {}
        for question in sorted(self.questions, key=lambda question: question.id):
            if question.split == "test":
                tasks.setdefault(question.task, []).append(question)
        return [question for group in tasks.values() for question in _spread(group, count)]


def load_run_data(config: RunConfig, run: Path) -> RunData:
    """Open the data that a preset names, or draw its AffectWorld.

    Raises:
        UserError: no data, unreadable data, nothing in the training or the test split.
    """
    data = config.data
    samples = _samples(config, run)
    if data.lexicon_spread is not None:
        samples = with_lexicon_affect(samples, data.lexicon_spread, config.seed)
    questions = build_questions(samples, data.tasks, config.seed, reasons=data.reasons)
    files = data.instructions
    if files.images is not None:
        if files.train is not None:
            questions += read_questions(Path(files.train), Path(files.images), "train")
        if files.test is not None:
            questions += read_questions(Path(files.test), Path(files.images), "test")
    splits = {sample.split for sample in samples} | {question.split for question in questions}
    for split in ("train", "test"):
        if split not in splits:
            raise UserError(f"the dataset has no images in split {split!r}")
    return RunData(samples, questions)


def _samples(config: RunConfig, run: Path) -> list[Sample]:
    if config.data.path is not None:
        return open_dataset(Path(config.data.path))
    world, files = config.data.world, config.data.instructions
    if not world.count:
        if files.train is not None:
            return []
        raise UserError(
            "no data was given",
            expected="DATA=<manifest or dataset folder>, or data.world.count in the preset",
        )
    folder = run / "world"
    with ranks.raise_together():
        if ranks.is_first() and not folder.exists():
            with progress("drawing images of the world", world.count) as show:
                write_world(folder, world.count, world.seed, progress=show)
    try:
        return open_dataset(folder)
    except UserError as error:
        raise UserError(
            f"the images that were drawn for this run cannot be read: {error}",
            fix=f"or delete {folder}, and it is drawn again",
        ) from error


def _spread(items: Sequence[Question], count: int) -> list[Question]:
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]
