"""Fitting an emotion space to the states that labelled images cause in a model."""

from __future__ import annotations

import math
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


RANK = 48
"""Directions in which the states of an emotion vary, at most."""


def fit_gaussian(states: Tensor) -> Gaussian:
    """Return mean and covariance of the states [N, 1 + K, D] of N images of one emotion.

    The covariance is that of the population. Its factor [RANK, 1 + K, D] has its principal
    directions times their standard deviation, largest first; in each, the number of largest
    magnitude is positive. It is exact for N <= RANK + 1, and has zero rows from N - 1 on; else it
    is the nearest of its rank.
    """
    rows = states.double().flatten(1)
    mean = rows.mean(0)
    _, scales, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    rank = min(RANK, len(rows) - 1, rows.shape[1])
    factor = torch.zeros(RANK, rows.shape[1], dtype=torch.float64)
    factor[:rank] = scales[:rank, None] / math.sqrt(len(rows)) * directions[:rank]
    factor *= factor.gather(1, factor.abs().argmax(1, keepdim=True)).sign()
    shape = states.shape[1:]
    return Gaussian(mean.unflatten(0, shape).float(), factor.unflatten(1, shape).float())


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

    The states of all N samples stay in memory: N × (1 + K) × D float32 numbers.

    Args:
        model: in evaluation mode.
        samples: each with an emotion; see `choose_samples`.
        load: returns a sample's image.
        batch_size: images read together.
        show: called with the number of images read so far, after each batch.

    Raises:
        UserError: no sample, a state that is not finite, an image that cannot be read.
    """
    states_of: dict[str, list[Tensor]] = {}
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
            states_of.setdefault(name, []).append(states[rows].float().cpu())
        done += len(batch)
        if show is not None:
            show(done)
    if not states_of:
        raise UserError(
            "no images to fit an emotion space to",
            expected="images of split 'train' with an emotion label",
        )
    return EmotionSpace(
        {name: fit_gaussian(torch.cat(states_of[name])) for name in MIKELS8 if name in states_of}
    )


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
