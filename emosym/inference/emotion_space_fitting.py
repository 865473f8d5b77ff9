"""Fitting an emotion space to the states that labelled images cause in a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.inference.recognition import questions
from emosym.models.emotion_space import EmotionSpace, Gaussian
from emosym.models.model import EmoSym
from emosym.records import Sample

MAX_IMAGES = 2000
"""Images of a space: 250 of each of eight emotions give its mean to 6 % of its deviation."""


class RunningMoments:
    """Mean and standard deviation of a stream, in one pass. Ref: Chan et al. 1979 (merging)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)
        """Sum of squared deviations from the mean."""

    def add(self, rows: Tensor) -> None:
        """Add rows [B, ...]; sums are float64."""
        rows = rows.detach().cpu().double()
        mean = rows.mean(0)
        total = self.count + len(rows)
        shift = mean - self.mean
        between = shift.pow(2) * self.count * len(rows) / total
        self.squares = self.squares + ((rows - mean).pow(2).sum(0) + between)
        self.mean = self.mean + shift * len(rows) / total
        self.count = total

    def gaussian(self) -> Gaussian:
        """Return mean and population deviation as float32."""
        return Gaussian(self.mean.float(), (self.squares / self.count).sqrt().float())


@torch.no_grad()
def fit_emotion_space(
    model: EmoSym,
    samples: Iterable[Sample],
    load: Callable[[Sample], Image.Image],
    *,
    batch_size: int = 32,
    show: Callable[[int], None] | None = None,
) -> EmotionSpace:
    """Fit a Gaussian of the understander's states to the images of each emotion.

    Args:
        model: in evaluation mode.
        samples: each with an emotion; see `choose_samples`.
        load: returns a sample's image.
        batch_size: images read together.
        show: called with the number of images read so far, after each batch.

    Raises:
        UserError: no sample, a state that is not finite, an image that cannot be read.
    """
    moments: dict[str, RunningMoments] = {}
    stream, done = iter(samples), 0
    while batch := list(islice(stream, batch_size)):
        states = model.read(questions(model, [load(sample) for sample in batch])).states
        if not states.isfinite().all():
            raise UserError(
                "the states of the model are not finite",
                fix="its weights are damaged: load another checkpoint",
            )
        labels = [sample.emotion for sample in batch]
        for name in dict.fromkeys(label for label in labels if label is not None):
            rows = torch.tensor([label == name for label in labels], device=states.device)
            moments.setdefault(name, RunningMoments()).add(states[rows])
        done += len(batch)
        if show is not None:
            show(done)
    if not moments:
        raise UserError(
            "no images to fit an emotion space to",
            expected="images of split 'train' with an emotion label",
        )
    return EmotionSpace({n: moments[n].gaussian() for n in MIKELS8 if n in moments})


def choose_samples(samples: Iterable[Sample], max_images: int = MAX_IMAGES) -> list[Sample]:
    """Return up to `max_images` labelled training samples, with one bound for each emotion.

    They are spread evenly over the order of their ids.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.id):
        if sample.split == "train" and sample.emotion is not None:
            groups.setdefault(sample.emotion, []).append(sample)
    chosen = []
    for group in groups.values():
        count = min(max_images // len(groups), len(group))
        chosen += [group[place * len(group) // count] for place in range(count)]
    return chosen
