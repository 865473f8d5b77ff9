"""Steering: images' states, moved along what distinguishes states of different affect.

Ref: activation addition (arXiv 2308.10248) moves hidden states by a difference of states; here the
difference is that of a ridge regression of states on valence and arousal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emosym.affect.scales import Affect
from emosym.errors import UserError

RIDGE = 0.1
"""Penalty of the regression, in squared units of `scales.PUBLIC`. Where the squared deviations of
the known affects sum to this, half of a step is taken: they say little about the direction."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SteeredState:
    """A weighted sum of the states of images and of emotions."""

    state: Tensor
    """[1 + K, D]; row 0 is h_emo, the rest h_ctx."""
    images: tuple[float, ...]
    """Weight of each image; the sum is 1. Below 0 for an image on the far side of the aim."""
    emotions: Mapping[str, float]
    """Mikels label -> weight of its mean state; the sum is 0. Empty without an emotion space."""
    affect: Affect
    """What the sum predicts: the same weighted sum of valence and arousal."""


def steer(
    states: Tensor,
    affects: Sequence[Affect],
    aim: Affect,
    emotions: Mapping[str, tuple[Tensor, Affect]] | None = None,
) -> SteeredState:
    """Return the mean state of images, moved to where a regression predicts `aim`.

    What the images share stays. The direction is fitted to the deviations of the images from their
    mean, and of the emotions from theirs, so neither group's level enters: in numbers of images and
    emotions, a_i - ā are their deviations, and weight_i = (1 / N for images) + (a_i - ā) · step,
    with step = (Σ (a_i - ā)(a_i - ā)ᵀ + RIDGE · I)⁻¹ (aim - ā_images). Those weights are the
    smallest (in squares) that predict the same.

    Args:
        states: of N images, [N, 1 + K, D].
        affects: what each image evokes; finite.
        aim: where the state should move; it is reached up to RIDGE if the affects span the plane.
        emotions: Mikels label -> mean state [1 + K, D], and the affect that it evokes.

    Raises:
        UserError: no image, another number of affects than of images.
    """
    if len(affects) != len(states) or not len(states):
        raise UserError(
            "steering needs the valence and arousal of each image",
            got=f"{len(affects)} of {len(states)} images",
            expected="one for each of at least one image",
        )
    known = emotions or {}
    images = _deviations(affects)
    others = _deviations([affect for _, affect in known.values()])
    squares = images.T @ images + others.T @ others
    mean = np.mean([affect.coordinates for affect in affects], 0)
    step = np.linalg.solve(squares + RIDGE * np.eye(2), np.array(aim.coordinates) - mean)
    image_weights, other_weights = 1 / len(images) + images @ step, others @ step
    rows = torch.stack([*states, *(state.to(states) for state, _ in known.values())])
    weights = torch.tensor([*image_weights, *other_weights]).to(states)
    valence, arousal = (mean + squares @ step).tolist()
    return SteeredState(
        state=torch.einsum("n,nkd->kd", weights, rows),
        images=tuple(image_weights.tolist()),
        emotions=dict(zip(known, other_weights.tolist(), strict=True)),
        affect=Affect.unchecked(valence, arousal),
    )


def _deviations(affects: Sequence[Affect]) -> np.ndarray:
    """Return valence and arousal less their means, [N, 2]; N may be 0."""
    points = np.array([affect.coordinates for affect in affects]).reshape(-1, 2)
    return points - points.mean(0) if len(points) else points
