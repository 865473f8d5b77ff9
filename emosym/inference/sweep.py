"""One request asked for at several points of affect: along valence, along arousal, or all over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from emosym.affect.scales import PUBLIC, UNIT
from emosym.errors import UserError
from emosym.inference.continuity import Continuity, continuity, mean_continuity
from emosym.records import ImageRequest, Understanding

Axis = Literal["valence", "arousal"]
AXES: tuple[Axis, ...] = ("valence", "arousal")
Over = Literal["valence", "arousal", "plane"]
POINTS = 5
"""Points on an axis where nothing else is said. Ref: arXiv 2501.05710 (EmotiCrafter) §4.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The points of a sweep: every valence with every arousal. Both ascend, on `affect.PUBLIC`."""

    valences: tuple[float, ...]
    arousals: tuple[float, ...]

    @property
    def points(self) -> list[tuple[float, float]]:
        """Return (valence, arousal) of each image: by rising arousal, in each by rising valence."""
        return [(valence, arousal) for arousal in self.arousals for valence in self.valences]

    @property
    def labels(self) -> tuple[tuple[Axis, tuple[float, ...]], tuple[Axis, tuple[float, ...]]]:
        """Return what goes across a sheet and what goes up: a strip lies, whatever is swept."""
        axes = ("valence", self.valences), ("arousal", self.arousals)
        return axes if len(self.valences) > 1 else axes[::-1]

    def requests(self, request: ImageRequest) -> list[ImageRequest]:
        """Return the request at each point."""
        return [replace(request, valence=v, arousal=a) for v, a in self.points]

    def lines(self, axis: Axis) -> list[list[int]]:
        """Return the places of images that differ in nothing but `axis`, each line ascending.

        None for an axis with one value.
        """
        places = np.arange(len(self.points)).reshape(len(self.arousals), len(self.valences))
        lines = (places if axis == "valence" else places.T).tolist()
        return [line for line in lines if len(line) > 1]

    def continuity(
        self, judged: Sequence[Understanding], pixels: np.ndarray, embeddings: np.ndarray
    ) -> dict[Axis, Continuity]:
        """Return how the images change along each swept axis, a mean over its lines.

        Args:
            judged: how each image is understood, in the order of `points`.
            pixels: [N, H, W, 3] in [0, 1].
            embeddings: [N, D].
        """
        found: dict[Axis, Continuity] = {}
        for axis in AXES:
            seen = np.array([getattr(one, axis) for one in judged])
            lines = [
                continuity(seen[line], pixels[line], embeddings[line]) for line in self.lines(axis)
            ]
            if lines:
                found[axis] = mean_continuity(lines)
        return found


def sweep(
    over: Over, points: int = POINTS, *, valence: float | None = None, arousal: float | None = None
) -> Sweep:
    """Return the sweep over an axis or the plane, from end to end of `affect.PUBLIC`.

    An axis that is not swept stays as given, or at 0.

    Raises:
        UserError: a value for an axis that is swept, one off the scale, fewer than two points.
    """
    fixed = {"valence": valence, "arousal": arousal}
    values: dict[str, tuple[float, ...]] = {}
    for axis in AXES:
        given = fixed[axis]
        if over in (axis, "plane"):
            if given is not None:
                raise UserError(
                    f"{axis} is what is swept", got=f"{axis} {given:g}", fix="leave it out"
                )
            values[axis] = axis_values(points)
        else:
            values[axis] = (PUBLIC.check(0.0 if given is None else given, axis),)
    return Sweep(valences=values["valence"], arousals=values["arousal"])


def axis_values(points: int) -> tuple[float, ...]:
    """Return `points` values evenly from end to end of `affect.PUBLIC`, both ends included.

    Raises `UserError` for fewer than two.
    """
    if points < 2:
        raise UserError("too few points to sweep an axis", got=points, expected="2 or more")
    # Rounded, because the request is shown to people and kept in files.
    return tuple(round(UNIT.convert(i / (points - 1), PUBLIC), 6) for i in range(points))
