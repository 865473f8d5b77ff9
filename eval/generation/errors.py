"""How far the affect of a generated image is from the affect that was requested."""

from __future__ import annotations

from typing import Protocol

from emosym.records import ImageRequest

Point = tuple[float, float]
"""Valence and arousal on `PUBLIC`, [-3, 3]."""


class Rated(Protocol):
    """A record with valence and arousal on `PUBLIC`, as `Understanding` and `Affect`."""

    @property
    def valence(self) -> float:
        """Valence, [-3, 3]."""

    @property
    def arousal(self) -> float:
        """Arousal, [-3, 3]."""


def affect_errors(image: Rated, target: Point) -> tuple[float, float]:
    """Return (|ΔV|, |ΔA|) between an image's affect and a target, on `PUBLIC`.

    Ref: V-Error and A-Error, arXiv 2501.05710 (EmotiCrafter), section 4.2.
    """
    return abs(image.valence - target[0]), abs(image.arousal - target[1])


def target_of(request: ImageRequest) -> Point | None:
    """Return the requested valence and arousal; None where they are not requested."""
    if request.valence is None or request.arousal is None:
        return None
    return request.valence, request.arousal
