"""The training set: which samples or questions a step sees, and their tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar, overload

import torch
from PIL import Image
from torch import Tensor

from emosym.errors import UserError
from emosym.pictures.loading import load_image
from emosym.randomness import Draws
from emosym.records import Question, Sample
from train.config import DataConfig

Kind = Literal["samples", "questions"]
"""What a batch is made of: images with their annotations, or questions about images."""
Item = TypeVar("Item", Sample, Question)


class TrainingSet:
    """The training split, in an order that is a pure function of (seed, phase, position)."""

    def __init__(
        self,
        samples: Sequence[Sample],
        questions: Sequence[Question],
        config: DataConfig,
        seed: int,
    ) -> None:
        self.samples = [sample for sample in samples if sample.split == "train"]
        self.questions = [question for question in questions if question.split == "train"]
        self.config = config
        self.seed = seed
        self._by_task: dict[str, list[Question]] = {}
        for question in self.questions:
            self._by_task.setdefault(question.task, []).append(question)
        self._images: OrderedDict[str, Image.Image] = OrderedDict()

    def require(self, option: str, *facts: str) -> None:
        """Raise UserError when no training image has any of the annotations an option needs."""
        if all(getattr(sample, fact) is None for sample in self.samples for fact in facts):
            raise UserError(
                f"{option} has nothing to learn from",
                got=f"no training image with {' or '.join(facts)}",
                fix=f"add it to the data, or set {option}=0",
            )

    @overload
    def all(self, kind: Literal["samples"]) -> Sequence[Sample]: ...
    @overload
    def all(self, kind: Literal["questions"]) -> Sequence[Question]: ...
    @overload
    def all(self, kind: Kind) -> Sequence[Sample] | Sequence[Question]: ...

    def all(self, kind: Kind) -> Sequence[Sample] | Sequence[Question]:
        """Return the training samples or questions; raise UserError when there are none."""
        items = self.samples if kind == "samples" else self.questions
        if not items:
            fix = "name tasks that its annotations answer in data.tasks" if self.samples else None
            raise UserError(
                f"the dataset has no training {kind}", expected="split 'train'", fix=fix
            )
        return items

    @overload
    def take(
        self, kind: Literal["samples"], phase: str, position: int, count: int
    ) -> list[Sample]: ...
    @overload
    def take(
        self, kind: Kind, phase: str, position: int, count: int
    ) -> list[Sample] | list[Question]: ...

    def take(
        self, kind: Kind, phase: str, position: int, count: int
    ) -> list[Sample] | list[Question]:
        """Return items [position, position + count) of the phase's endless shuffled stream.

        Questions alternate between their tasks, so that each task has the same share.
        """
        if kind == "samples":
            return self._take([self.all("samples")], phase, position, count)
        self.all("questions")
        return self._take(list(self._by_task.values()), phase, position, count)

    def _take(
        self, tasks: Sequence[Sequence[Item]], phase: str, position: int, count: int
    ) -> list[Item]:
        picked: list[Item] = []
        orders: dict[tuple[int, int], list[int]] = {}
        for place in range(position, position + count):
            turn, task = divmod(place, len(tasks))
            epoch, offset = divmod(turn, len(tasks[task]))
            if (task, epoch) not in orders:
                draws = Draws(self.seed, "order", phase, *([task] if task else []), epoch)
                orders[task, epoch] = draws.permutation(len(tasks[task])).tolist()
            picked.append(tasks[task][orders[task, epoch][offset]])
        return picked

    def image(self, path: Path | Image.Image) -> Image.Image:
        """Return an image; files are read once and kept in memory while there is room."""
        if isinstance(path, Image.Image):
            return path
        key = str(path)
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key]
        image = load_image(path)
        self._images[key] = image
        if len(self._images) > self.config.image_cache:
            self._images.popitem(last=False)
        return image

    def views(self, samples: Sequence[Sample], uniform: Tensor) -> list[Image.Image]:
        """Return the image of each sample, flipped and cropped by draws in [0, 1), [B, 4]."""
        images = [self.image(sample.image) for sample in samples]
        if not self.config.flip and self.config.crop == 1:
            return images
        rows = uniform.tolist()
        return [self._augment(image, *row) for image, row in zip(images, rows, strict=True)]

    def _augment(
        self, image: Image.Image, flip: float, scale: float, x: float, y: float
    ) -> Image.Image:
        share = self.config.crop + (1 - self.config.crop) * scale
        width, height = (max(1, round(side * share)) for side in image.size)
        left, top = round((image.width - width) * x), round((image.height - height) * y)
        view = image.crop((left, top, left + width, top + height))
        if self.config.flip and flip < 0.5:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return view


def square_pixels(image: Image.Image, side: int) -> Tensor:
    """Return the centre square of an image as pixels [3, side, side] in [-1, 1]."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    if short != side:
        square = square.resize((side, side), Image.Resampling.LANCZOS)
    data = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    return data.view(side, side, 3).permute(2, 0, 1).float() / 127.5 - 1


def affect_targets(samples: Sequence[Sample]) -> Tensor:
    """Return [B, 2] valence and arousal on the public scale; NaN where unknown."""
    nan = float("nan")
    return torch.tensor(
        [
            [nan if s.valence is None else s.valence, nan if s.arousal is None else s.arousal]
            for s in samples
        ]
    )


def label_targets(samples: Sequence[Sample], names: Sequence[str]) -> Tensor:
    """Return [B] class indices; -100 where the label is unknown."""
    index = {name: i for i, name in enumerate(names)}
    return torch.tensor([-100 if s.emotion is None else index[s.emotion] for s in samples])
