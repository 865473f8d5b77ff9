"""Sweeps: one request at several values of valence, of arousal, or of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from emosym.affect.scales import PUBLIC, UNIT, Affect
from emosym.errors import UserError
from emosym.inference.continuity import Continuity, continuity, mean_continuity
from emosym.records import ImageRequest, Understanding

Axis = Literal["valence", "arousal"]
AXES: tuple[Axis, ...] = ("valence", "arousal")
Over = Literal["valence", "arousal", "plane"]
POINTS = 5
"""Default number of points on an axis. Ref: arXiv 2501.05710 (EmotiCrafter), section 4.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep over every valence with every arousal; both ascending, on `affect.PUBLIC`."""

    valences: tuple[float, ...]
    arousals: tuple[float, ...]

    @property
    def points(self) -> list[Affect]:
        """Return the affect of each image, sorted by arousal, then by valence."""
        return [Affect(valence, arousal) for arousal in self.arousals for valence in self.valences]

    @property
    def labels(self) -> tuple[tuple[Axis, tuple[float, ...]], tuple[Axis, tuple[float, ...]]]:
        """Return the horizontal and the vertical axis of a sheet; a strip is horizontal."""
        axes: tuple[tuple[Axis, tuple[float, ...]], tuple[Axis, tuple[float, ...]]]
        axes = ("valence", self.valences), ("arousal", self.arousals)
        return axes if len(self.valences) > 1 else (axes[1], axes[0])

    def requests(self, request: ImageRequest) -> list[ImageRequest]:
        """Return the request with the affect of each point."""
        return [replace(request, affect=point) for point in self.points]

    def lines(self, axis: Axis) -> list[list[int]]:
        """Return series of indices of images that differ only in `axis`, ascending.

        There are none for an axis with one value.
        """
        indices = np.arange(len(self.points)).reshape(len(self.arousals), len(self.valences))
        lines = (indices if axis == "valence" else indices.T).tolist()
        return [line for line in lines if len(line) > 1]

    def continuity(
        self, judged: Sequence[Understanding], pixels: np.ndarray, embeddings: np.ndarray
    ) -> dict[Axis, Continuity]:
        """Return how the images change along each swept axis, as the mean over its series.

        Args:
            judged: the judged emotion of each image, in the order of `points`.
            pixels: [N, H, W, 3] in [0, 1].
            embeddings: [N, D].
        """
        results: dict[Axis, Continuity] = {}
        for axis in AXES:
            values = np.array([getattr(one.affect, axis) for one in judged])
            lines = [
                continuity(values[line], pixels[line], embeddings[line])
                for line in self.lines(axis)
            ]
            if lines:
                results[axis] = mean_continuity(lines)
        return results


def sweep(
    over: Over, points: int = POINTS, *, valence: float | None = None, arousal: float | None = None
) -> Sweep:
    """Return the sweep over an axis or the plane, over the whole range of `affect.PUBLIC`.

    An axis that is not swept has the given value, or 0.

    Raises:
        UserError: a value for a swept axis, a value outside the scale, fewer than two points.
    """
    fixed = {"valence": valence, "arousal": arousal}
    values: dict[str, tuple[float, ...]] = {}
    for axis in AXES:
        given = fixed[axis]
        if over in (axis, "plane"):
            if given is not None:
                raise UserError(
                    f"{axis} is swept and takes no value",
                    got=f"{axis} {given:g}",
                    fix="leave it out",
                )
            values[axis] = axis_values(points)
        else:
            values[axis] = (PUBLIC.check(0.0 if given is None else given, axis),)
    return Sweep(valences=values["valence"], arousals=values["arousal"])


def axis_values(points: int) -> tuple[float, ...]:
    """Return `points` evenly spaced values over `affect.PUBLIC`, both ends included.

    Raises `UserError` for fewer than two.
    """
    if points < 2:
        raise UserError("too few points to sweep an axis", got=points, expected="2 or more")
    # Rounded, because requests are printed and stored in files.
    return tuple(round(UNIT.convert(i / (points - 1), PUBLIC), 6) for i in range(points))
