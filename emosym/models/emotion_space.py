"""The emotion space: the distribution of the understander's states for each emotion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from emosym.affect.taxonomies import MIKELS8, mikels
from emosym.errors import UserError
from emosym.randomness import Draws

FIT_COMMAND = "`emosym zoo space MODEL --data FOLDER`"
"""The command that fits the emotion space of a model."""


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """Gaussian over states [1 + K, D] of one emotion; row 0 is h_emo, the rest h_ctx.

    Its covariance is of the whole state: the reasoning tokens of an image are nearly equal and vary
    in few directions, and a state with independent numbers is unlike that of any image.
    """

    mean: Tensor
    """float32 [1 + K, D]"""
    factor: Tensor
    """float32 [R, 1 + K, D]. The covariance of the flattened state is factorᵀ factor. The rows of
    a fit are its principal directions times their standard deviation, largest first."""


class EmotionSpace:
    """A Gaussian of (h_emo, h_ctx) for each emotion, all with the same R.

    Ref: EmoSym, emotion space (docs/papers.md); EmoGen (arXiv 2401.04608).
    """

    def __init__(self, gaussians: Mapping[str, Gaussian]) -> None:
        self.gaussians = dict(gaussians)

    def blend(self, weights: Mapping[str, float]) -> Gaussian:
        """Return the Gaussian between emotions: weighted mean of means, and of covariances.

        Between two emotions at 1 - t and t, mean and covariance move linearly with t: the
        covariance neither shrinks in the middle, like that of averaged draws, nor has the distance
        of the emotions in it, like that of a mixture. Of one emotion it is that emotion's Gaussian;
        of several, R is the sum of theirs, and the rows of each are in the space's order.

        Args:
            weights: as in `blend_shares`.

        Raises:
            UserError: as `blend_shares`; an emotion that the space does not have.
        """
        parts = [(self.gaussians[name], share) for name, share in self._shares(weights).items()]
        return Gaussian(
            mean=sum((gaussian.mean * share for gaussian, share in parts), torch.zeros(())),
            factor=torch.cat([gaussian.factor * math.sqrt(share) for gaussian, share in parts]),
        )

    def sample(self, weights: Mapping[str, float], seeds: Sequence[int]) -> Tensor:
        """Return a state for each seed, [B, 1 + K, D]; raises as `blend`.

        With equal seeds, similar weights give similar states: the normal numbers of an emotion
        follow from the seed and its name alone. An emotion that joins with a small share moves a
        state by about the root of that share, times how far its own draw is from its mean.
        """
        gaussian = self.blend(weights)
        names = self._shares(weights)
        rank = len(gaussian.factor) // len(names)
        states = []
        for seed in seeds:
            normal = torch.cat([Draws("emotion space", seed, name).normal(rank) for name in names])
            states.append(gaussian.mean + torch.tensordot(normal, gaussian.factor, dims=1))
        return torch.stack(states)

    def _shares(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return the shares above 0, in the space's order; raises as `blend`."""
        shares = blend_shares(weights)
        for name in shares:
            if name not in self.gaussians:
                raise UserError(
                    f"the model's emotion space has no {name}",
                    expected=f"one of {', '.join(self.gaussians)}",
                    fix=f"fit it again to data with {name}: {FIT_COMMAND}",
                )
        return {name: shares[name] for name in self.gaussians if shares.get(name)}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors by name, `awe.mean` and `awe.factor`; for safetensors."""
        return {
            f"{name}.{field}": getattr(gaussian, field)
            for name, gaussian in self.gaussians.items()
            for field in ("mean", "factor")
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], shape: tuple[int, int]) -> EmotionSpace:
        """Return the space of a `state_dict`.

        Args:
            state: tensors by name.
            shape: (1 + K, D) of the model that it belongs to.

        Raises:
            UserError: names, shapes or values that do not fit that model, as those of a space of
                deviations per dimension, `awe.std`.
        """
        names = [name for name in MIKELS8 if f"{name}.mean" in state]
        keys = {f"{name}.{field}" for name in names for field in ("mean", "factor")}
        wrong = sorted(keys ^ state.keys())
        found = {key: state[key] for key in sorted(keys & state.keys())}
        ranks = [value.shape[:1] for key, value in found.items() if key.endswith(".factor")]
        for key, value in found.items():
            rank = () if key.endswith(".mean") else ranks[0]
            if tuple(value.shape) != (*rank, *shape) or not value.isfinite().all():
                wrong.append(key)
        if wrong or not names:
            raise UserError(
                "the emotion space does not belong to this model",
                got=f"{len(wrong)} tensors that do not fit, first {wrong[0]}" if wrong else "none",
                expected=f"a finite mean {list(shape)} for each emotion, and a finite factor of "
                f"the covariance [R, {shape[0]}, {shape[1]}] with one R for all",
                fix=f"fit it again: {FIT_COMMAND} --overwrite",
            )
        return cls({n: Gaussian(state[f"{n}.mean"], state[f"{n}.factor"]) for n in names})


def blend_shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each emotion in a blend, by its Mikels label; they sum to 1.

    Args:
        weights: emotion -> weight, at least 0; each is divided by the sum of all.

    Raises:
        UserError: no mapping; an unknown or repeated emotion, a negative or non-finite weight, no
            weight above 0.
    """
    if not isinstance(weights, Mapping):
        raise UserError(
            "a blend", got=repr(weights), expected="emotion -> weight, as in {'awe': 3, 'fear': 1}"
        )
    parsed: dict[str, float] = {}
    for emotion, weight in weights.items():
        name = mikels(emotion)
        if name in parsed:
            raise UserError(f"{name} is given twice in a blend")
        if not (isinstance(weight, Real) and math.isfinite(weight) and weight >= 0):
            raise UserError(
                f"the weight of {name} in a blend",
                got=repr(weight),
                expected="a finite number, 0 or more",
            )
        parsed[name] = float(weight)
    total = sum(parsed.values())
    if not 0 < total < math.inf:
        raise UserError(
            "the sum of the weights in a blend, by which each is divided",
            got=total,
            expected="a finite number above 0",
        )
    return {name: weight / total for name, weight in parsed.items()}
