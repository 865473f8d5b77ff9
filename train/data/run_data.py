"""What a run learns from and is measured on: samples, and questions about images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from data_tools.labels.lexicon import with_lexicon_affect
from data_tools.questions.build import build_questions
from data_tools.questions.eemodb import read_questions
from emosym.errors import UserError
from emosym.records import Question, Sample
from train.config import TrainConfig
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
        return [question for asked in tasks.values() for question in _spread(asked, count)]


def load_run_data(config: TrainConfig, run: Path) -> RunData:
    """Open, or draw, what a preset names.

    Raises:
        UserError: no data, unreadable data, nothing in the training or the test split.
    """
    data = config.data
    samples = _samples(config, run)
    if data.lexicon_spread is not None:
        samples = with_lexicon_affect(samples, data.lexicon_spread, config.seed)
    questions = build_questions(samples, data.tasks, config.seed, reasons=data.reasons)
    files = data.instructions
    for path, split in ((files.train, "train"), (files.test, "test")):
        if path is not None:
            questions += read_questions(Path(path), Path(files.images), split)
    for split in ("train", "test"):
        if not any(item.split == split for item in (*samples, *questions)):
            raise UserError(f"the dataset has no images in split {split!r}")
    return RunData(samples, questions)


def _samples(config: TrainConfig, run: Path) -> list[Sample]:
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
    if ranks.is_first() and not folder.exists():
        write_world(folder, world.count, world.seed)
    ranks.barrier()
    return open_dataset(folder)


def _spread(items: Sequence[Question], count: int) -> list[Question]:
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]
