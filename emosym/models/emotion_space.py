"""The emotion space: where each emotion lies among the states that images put the model in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from emosym.affect.taxonomies import MIKELS8, mikels
from emosym.errors import UserError
from emosym.inference.recognition import questions
from emosym.randomness import Draws
from emosym.records import Sample

if TYPE_CHECKING:
    from emosym.models.model import EmoSym

MOST = 2000
"""Images of a space: 250 of each of eight emotions know its mean to 6 % of its spread."""
MAKE = "`emosym zoo space MODEL --data FOLDER`"
"""The command that gives a model its space."""


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """One emotion: independent normal numbers, a state [1 + K, D]; row 0 is h_emo, then h_ctx."""

    mean: Tensor
    """float32 [1 + K, D]"""
    std: Tensor
    """float32 [1 + K, D], over the population; 0 where one image was seen."""


class EmotionSpace:
    """A Gaussian of (h_emo, h_ctx) for each emotion, diagonal. Ref: EmoSym §2.7; EmoGen."""

    def __init__(self, gaussians: Mapping[str, Gaussian]) -> None:
        self.gaussians = dict(gaussians)

    def blend(self, weights: Mapping[str, float]) -> Gaussian:
        """Return the Gaussian between emotions: the weighted mean of means, and of deviations.

        That is their Wasserstein barycentre: the spread is neither narrower in the middle, as that
        of a mean of draws is, nor as wide as the emotions are apart, as that of a mixture is. Two
        emotions at 1 - t and t are on the straight way from one to the other.
        Ref: Agueh & Carlier 2011 (Gaussians whose covariances commute).

        Args:
            weights: as `shares` takes them.

        Raises:
            UserError: as `shares`; an emotion that the space does not know.
        """
        parts = shares(weights)
        for name in parts:
            if name not in self.gaussians:
                raise UserError(
                    f"the model's emotion space has no {name}",
                    expected=f"one of {', '.join(self.gaussians)}",
                    fix=f"make it again from data with {name}: {MAKE}",
                )
        known = [(self.gaussians[name], share) for name, share in parts.items()]
        return Gaussian(
            mean=sum(one.mean * share for one, share in known),
            std=sum(one.std * share for one, share in known),
        )

    def sample(self, weights: Mapping[str, float], seeds: Sequence[int]) -> Tensor:
        """Return a state for each seed, [B, 1 + K, D]; raises as `blend`.

        With the same seeds, neighbouring weights give neighbouring states.
        """
        gaussian = self.blend(weights)
        normal = [Draws("emotion space", seed).normal(*gaussian.mean.shape) for seed in seeds]
        return gaussian.mean + gaussian.std * torch.stack(normal)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors by name, `awe.mean` and `awe.std`; for safetensors."""
        return {
            f"{name}.{what}": getattr(gaussian, what)
            for name, gaussian in self.gaussians.items()
            for what in ("mean", "std")
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor], shape: tuple[int, int]) -> EmotionSpace:
        """Return the space that `state` told of.

        Args:
            state: tensors by name.
            shape: (1 + K, D) of the model that it belongs to.

        Raises:
            UserError: other names, shapes or numbers than a space of that model has.
        """
        names = [name for name in MIKELS8 if f"{name}.mean" in state]
        keys = {f"{name}.{what}" for name in names for what in ("mean", "std")}
        wrong = sorted(keys ^ state.keys())
        for key in sorted(keys & state.keys()):
            value = state[key]
            least = 0 if key.endswith("std") else -math.inf
            if tuple(value.shape) != shape or not (value.isfinite() & (value >= least)).all():
                wrong.append(key)
        if wrong or not names:
            raise UserError(
                "the emotion space is not one of this model",
                got=f"{len(wrong)} tensors that do not fit, first {wrong[0]}" if wrong else "none",
                expected=f"a finite mean and deviation {list(shape)} for each emotion",
                fix=f"make it again: {MAKE} --overwrite",
            )
        return cls({n: Gaussian(state[f"{n}.mean"], state[f"{n}.std"]) for n in names})


class Moments:
    """Mean and deviation of a stream, in one pass: batches are merged as Chan et al. (1979) do."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, rows: Tensor) -> None:
        """Take in rows [B, ...]; sums are float64."""
        rows = rows.detach().cpu().double()
        mean = rows.mean(0)
        total = self.count + len(rows)
        apart = mean - self.mean
        self.squares += (rows - mean).pow(2).sum(0) + apart.pow(2) * self.count * len(rows) / total
        self.mean += apart * len(rows) / total
        self.count = total

    def gaussian(self) -> Gaussian:
        """Return what was seen, over the population."""
        return Gaussian(self.mean.float(), (self.squares / self.count).sqrt().float())


@torch.no_grad()
def fit_space(
    model: EmoSym,
    samples: Iterable[Sample],
    load: Callable[[Sample], Image.Image],
    *,
    batch_size: int = 32,
    show: Callable[[int], None] | None = None,
) -> EmotionSpace:
    """Read labelled images and return the space of what they put the model in.

    Args:
        model: in evaluation mode.
        samples: each with an emotion; `pick` chooses them.
        load: gives a sample's image.
        batch_size: images read together.
        show: told how many were read, after each batch.

    Raises:
        UserError: no sample, a state that is not finite, an image that cannot be read.
    """
    moments: dict[str, Moments] = {}
    stream, done = iter(samples), 0
    while batch := list(islice(stream, batch_size)):
        reading = model.read(questions(model, [load(sample) for sample in batch]))
        states = torch.cat([reading.h_emo[:, None], reading.h_ctx], 1)
        if not states.isfinite().all():
            raise UserError(
                "the model sees numbers that are not finite",
                fix="its weights are damaged: load another checkpoint",
            )
        labels = [sample.emotion for sample in batch]
        for name in dict.fromkeys(labels):
            rows = torch.tensor([label == name for label in labels], device=states.device)
            moments.setdefault(name, Moments()).add(states[rows])
        done += len(batch)
        if show is not None:
            show(done)
    if not moments:
        raise UserError(
            "no images to make an emotion space of",
            expected="images of split 'train' with an emotion label",
        )
    return EmotionSpace({n: moments[n].gaussian() for n in MIKELS8 if n in moments})


def pick(samples: Iterable[Sample], most: int = MOST) -> list[Sample]:
    """Return up to `most` labelled training samples, the same number of each emotion at most.

    They are spread evenly over the order of their ids.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.id):
        if sample.split == "train" and sample.emotion is not None:
            groups.setdefault(sample.emotion, []).append(sample)
    picked = []
    for group in groups.values():
        share = min(most // len(groups), len(group))
        picked += [group[place * len(group) // share] for place in range(share)]
    return picked


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each emotion, by its Mikels label; they sum to 1.

    Args:
        weights: emotion -> weight, at least 0.

    Raises:
        UserError: an unknown emotion or one that is named twice, a weight that is none, no weight
            above 0.
    """
    parts: dict[str, float] = {}
    for given, weight in weights.items():
        name = mikels(given)
        if name in parts:
            raise UserError(f"{name} comes twice in a blend")
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(
                f"the weight of {name} in a blend",
                got=weight,
                expected="a finite number, 0 or more",
            )
        parts[name] = float(weight)
    total = sum(parts.values())
    if not 0 < total < math.inf:
        raise UserError("the weights of a blend sum to nothing that divides", got=total)
    return {name: weight / total for name, weight in parts.items()}
