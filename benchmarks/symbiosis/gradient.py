"""Part `gradient`: does the generator's loss teach the understander where labels are few?

5 % of the training images keep their label; of the others only the image and its prompt are known,
which is all that `generate` needs. A model that has learned from both continues in each arm with
the same `compress` steps; two arms also take `generate` steps between them, one with the loss
flowing into the understander (without the supervised losses of that option). The last arm takes as
many `compress` steps as fit in the processor time of that one, on the labelled images alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.few_labels import few_labels
from benchmarks.results import Row
from benchmarks.symbiosis.scores import UNDERSTANDING, understood
from benchmarks.symbiosis.study import (
    PRESET,
    SUPERVISED,
    UNMEASURED,
    Part,
    Study,
    Training,
    stages,
)
from benchmarks.trainer import seconds_of_cycle
from data_tools.dataset import open_dataset
from data_tools.manifest import write_manifest
from emosym.config import load_config
from emosym.records import Sample
from model_zoo import zoo
from train.data.run_data import RunData
from train.phases.registry import train_config
from train.trainer import Trainer

NONE, FROZEN, GRADIENT, TIME = (
    "no generate",
    "generate, no gradient",
    "generate, gradient",
    "no generate, equal time",
)
MIXED = (*SUPERVISED, "compress.batch_size=32")
"""Overrides of the arms that also have unlabelled images. Half of a batch has a label: batches of
twice the preset's size have as many."""
FLOWING = (
    "generate.update_understander=true",
    "generate.label_weight=0",
    "generate.affect_weight=0",
)
"""Overrides of the arm with the gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientPart(Part):
    """See the module."""

    labels: int = 150
    """Training images with a label."""
    start_steps: tuple[int, int] = (200, 200)
    """Steps of `compress` and of `generate` before the arms part."""
    compress_steps: int = 150
    """Of an arm."""
    generates: int = 2
    """Steps of `generate` after each of them."""
    timed: int = 10
    """Turns of a cycle that are timed."""

    name = "gradient"
    question = "Does the generator's loss teach the understander where labels are few?"
    arms = (NONE, FROZEN, GRADIENT, TIME)
    metrics = UNDERSTANDING
    facts: ClassVar[Mapping[str, str]] = {
        "compress": "compress steps",
        "generate": "generate steps",
    }

    def measure(self, study: Study, arm: str, seed: int) -> Row:
        """Train an arm; return `UNDERSTANDING` and its steps."""
        labelled, mixed = self._data(study, seed)
        compress, generate = self.start_steps
        start = study.train(
            "shared",
            seed,
            model=study.start(seed),
            data=mixed,
            overrides=[
                stages((compress, {"compress": 1}), (generate, {"generate": 1})),
                *MIXED,
                *UNMEASURED,
            ],
        ).model
        data, overrides = mixed, self._overrides(arm)
        if arm == TIME:
            turn = _seconds(study, start, mixed, self._overrides(GRADIENT), self.timed)
            step = _seconds(study, start, labelled, overrides, self.timed)
            steps = round(self.compress_steps * turn / step)
            data, overrides = labelled, (stages((steps, {"compress": 1})), *SUPERVISED)
        trained = study.train(
            arm.replace(", ", "-").replace(" ", "-"),
            seed,
            model=start,
            data=data,
            overrides=overrides,
        )
        return understood(trained) | _steps(trained)

    def _overrides(self, arm: str) -> tuple[str, ...]:
        """Return the overrides of an arm; the last arm has the steps of the first one here."""
        if arm in (NONE, TIME):
            alone = stages((self.compress_steps, {"compress": 1}))
            return (alone, *(MIXED if arm == NONE else SUPERVISED))
        cycle = {"compress": 1, "generate": self.generates}
        interleaved = stages((self.compress_steps * sum(cycle.values()), cycle))
        return (interleaved, *MIXED, *(FLOWING if arm == GRADIENT else ()))

    def _data(self, study: Study, seed: int) -> tuple[Path, Path]:
        """Return the manifests of a seed: the labelled images, and these with the unlabelled ones.

        Both have the test split. In the second one each labelled image is repeated, so that it has
        about as many labelled as unlabelled training images.
        """
        paths = [study.folder / f"{name}-{seed}.jsonl" for name in ("labelled", "mixed")]
        if not all(path.exists() for path in paths):
            samples = open_dataset(study.world)
            train = [sample for sample in samples if sample.split == "train"]
            test = [sample for sample in samples if sample.split == "test"]
            labelled = few_labels(train, self.labels, seed)
            known = {sample.id for sample in labelled}
            others = [unlabelled(sample) for sample in train if sample.id not in known]
            copies = [
                dataclasses.replace(sample, id=f"{sample.id}-{copy}")
                for copy in range(round(len(others) / len(labelled)))
                for sample in labelled
            ]
            write_manifest(paths[0], [*labelled, *test])
            write_manifest(paths[1], [*copies, *others, *test])
        return paths[0], paths[1]


def unlabelled(sample: Sample) -> Sample:
    """Return a sample of which only the image and its neutral prompt are known."""
    return Sample(
        id=sample.id,
        image=sample.image,
        split=sample.split,
        prompt=sample.prompt,
        source=sample.source,
    )


def _seconds(study: Study, model: Path, data: Path, overrides: Sequence[str], turns: int) -> float:
    """Return the processor seconds of a turn of the cycle of a training that is not kept."""
    config = load_config(train_config(), PRESET, [*overrides, *study.overrides])
    samples = RunData(open_dataset(data), [])
    trainer = Trainer(config, study.folder, zoo.load(model), samples, "timed")
    return seconds_of_cycle(trainer, turns)


def _steps(training: Training) -> Row:
    """Return the steps of a training by phase."""
    done = training.report["phases"]
    return {phase: done.get(phase, 0) for phase in ("compress", "generate")}
