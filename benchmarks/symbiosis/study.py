"""What the parts of the study share: a world, the starting models, and how an arm trains."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from benchmarks.results import Row
from benchmarks.study_run import finished
from data_tools.affectworld.world import write_world
from emosym.models.model import EmoSym
from model_zoo import zoo
from model_zoo.backbones.qwen_vl import QwenVL

PRESET = Path(__file__).parents[2] / "train" / "presets" / "tiny" / "symbiosis-tiny.yaml"
SUPERVISED = ("compress.knowledge_weight=0", "compress.language_weight=0")
"""Overrides for `compress` with the losses on label, valence and arousal alone."""
UNMEASURED = ("evaluate.images=0",)
"""Overrides of a training that another one continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The folder of a part, and the sizes that do not depend on the arm."""

    folder: Path
    model: str = "emosym-tiny"
    """Gives the decoder of every arm, with autoencoder and text encoder; it also judges."""
    images: int = 3000
    """Of the world, all splits together."""
    drawn: int = 128
    """Held-out images that are drawn again from their state."""
    overrides: tuple[str, ...] = ()
    """Changes of the preset in every training."""

    @property
    def world(self) -> Path:
        """The folder of the world."""
        return self.folder / "world"

    def prepare(self, seeds: int) -> None:
        """Draw the world and make the starting models of seeds 0 .. N - 1, where they are not."""
        if not self.world.exists():
            write_world(self.world, self.images, 0)
        for seed in range(seeds):
            if not self.start(seed).exists():
                zoo.save(random_start(self.model, seed), self.start(seed))

    def start(self, seed: int) -> Path:
        """Return the folder of a seed's starting model."""
        return self.folder / f"start-{seed}"

    def train(
        self,
        name: str,
        seed: int,
        *,
        model: Path,
        overrides: Sequence[str],
        data: Path | None = None,
    ) -> Training:
        """Return a finished training, which runs now unless an earlier call has finished it.

        Args:
            name: of the training, the same for all seeds.
            seed: of the training.
            model: folder of the model that it starts from.
            overrides: changes of the preset, after those of the study's own.
            data: manifest, or None for the world.
        """
        run = self.folder / f"{name}-{seed}"
        changes = [f"model={model}", f"seed={seed}", *overrides, *self.overrides]
        return Training(run, finished(PRESET, run, data or self.world, changes))


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training."""

    run: Path
    """Its folder."""
    report: Mapping[str, Any]
    """Its report."""

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.run / "model"


class Part(ABC):
    """A question of the study, and the arms that answer it; an instance has their sizes."""

    __slots__ = ()
    name: ClassVar[str]
    """On the command line."""
    question: ClassVar[str]
    """For a reader of the table."""
    arms: ClassVar[Sequence[str]]
    """Their names; the others are compared with the first one."""
    metrics: ClassVar[Mapping[str, str]]
    """Key of a row -> title of what is compared."""
    facts: ClassVar[Mapping[str, str]] = {}
    """Key of a row -> title of what is only told."""

    @abstractmethod
    def measure(self, study: Study, arm: str, seed: int) -> Row:
        """Train an arm with a seed, and return its metrics and facts."""


def stages(*each: tuple[int, Mapping[str, int]]) -> str:
    """Return the override for stages, each of so many steps of a cycle of phases."""
    return "stages=" + json.dumps([{"steps": steps, "cycle": dict(cycle)} for steps, cycle in each])


def random_start(name_or_path: str | Path, seed: int) -> EmoSym:
    """Return a model with random understander and conditioner; the rest is that of a model.

    Kept are tokenizers, text encoder, denoiser and autoencoder. A seed gives the same weights.
    """
    model = zoo.load(name_or_path)
    network: Any = zoo.components(model).backbone.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EmoSym(
            model.config,
            backbone=QwenVL(type(network)(network.config)),
            processor=model.processor,
            denoiser=model.generator.denoiser,
            autoencoder=model.autoencoder,
        ).eval()
