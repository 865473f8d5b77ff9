"""Affect scales and points: a number never travels without the scale it was measured on."""

from __future__ import annotations

from dataclasses import dataclass

from emosym.errors import UserError


@dataclass(frozen=True, slots=True)
class Scale:
    """A closed interval [low, high] on which valence, arousal or dominance was rated."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Scale needs low < high, got [{self.low}, {self.high}]")

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]"

    def check(self, value: float, name: str) -> float:
        """Return `value` as a float; raise UserError when it is not finite or lies outside."""
        if not self.low <= value <= self.high:  # nor is NaN
            raise UserError(
                f"{name} is outside its scale", got=value, expected=f"a number in {self}"
            )
        return float(value)

    def convert(self, value: float, to: Scale) -> float:
        """Map `value` linearly from this scale to another (ends to ends)."""
        return to.low + (value - self.low) * (to.high - to.low) / (self.high - self.low)


PUBLIC = Scale(-3.0, 3.0)
"""The scale of commands, reports and manifests, EmotiCrafter's. Ref: arXiv 2501.05710."""

UNIT = Scale(0.0, 1.0)
SIGNED = Scale(-1.0, 1.0)
SAM7 = Scale(1.0, 7.0)
"""OASIS."""
SAM9 = Scale(1.0, 9.0)
"""Warriner norms, EEmo-Bench."""
TEN = Scale(1.0, 10.0)
"""EMOTIC."""
PERCENT = Scale(0.0, 100.0)
"""GAPED."""


@dataclass(frozen=True, slots=True)
class Affect:
    """A point in affect space on a known scale.

    Raises `UserError` when a coordinate lies outside `scale`. Arithmetic between two scales is a
    programming error and raises `ValueError`; convert with `to` first.
    """

    valence: float
    arousal: float
    scale: Scale = PUBLIC

    def __post_init__(self) -> None:
        self.scale.check(self.valence, "valence")
        self.scale.check(self.arousal, "arousal")

    def to(self, scale: Scale) -> Affect:
        """Return the same point on another scale."""
        return Affect(
            self.scale.convert(self.valence, scale), self.scale.convert(self.arousal, scale), scale
        )

    def distance(self, other: Affect) -> float:
        """Return |ΔV| + |ΔA| in units of the common scale."""
        if self.scale != other.scale:
            raise ValueError(
                f"mixed affect scales {self.scale} and {other.scale}; convert with .to()"
            )
        return affect_distance((self.valence, self.arousal), (other.valence, other.arousal))


def affect_distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return |ΔV| + |ΔA| of two (valence, arousal) pairs on one scale; NaN if a value is NaN.

    For unchecked values, such as those of a judge; else use `Affect.distance`.
    """
    return abs(one[0] - other[0]) + abs(one[1] - other[1])
