"""Affect scales, and points of valence and arousal that carry their scale."""

from __future__ import annotations

from dataclasses import dataclass

from emosym.errors import UserError


@dataclass(frozen=True, slots=True)
class Scale:
    """A closed interval [low, high] on which valence, arousal or dominance was rated.

    Raises `ValueError` unless low < high.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Scale needs low < high, got [{self.low}, {self.high}]")

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]"

    @property
    def span(self) -> float:
        """high - low."""
        return self.high - self.low

    def check(self, value: float, name: str) -> float:
        """Return `value` as a float; raise UserError when it is not finite or lies outside."""
        if not self.low <= value <= self.high:  # also refuses NaN
            raise UserError(
                f"{name} is outside its scale", got=value, expected=f"a number in {self}"
            )
        return float(value)

    def convert(self, value: float, to: Scale) -> float:
        """Map `value` linearly from this scale to another (ends to ends)."""
        return to.low + (value - self.low) * (to.high - to.low) / (self.high - self.low)


PUBLIC = Scale(-3.0, 3.0)
"""Scale of commands, reports and manifests, as in EmotiCrafter. Ref: arXiv 2501.05710."""

UNIT = Scale(0.0, 1.0)
"""EEmo-Logic's questions and answers."""
SAM7 = Scale(1.0, 7.0)
"""OASIS."""
SAM9 = Scale(1.0, 9.0)
"""Warriner norms, EEmo-Bench."""


@dataclass(frozen=True, slots=True)
class Affect:
    """Valence and arousal on a scale.

    Raises `UserError` when a coordinate is not finite or lies outside the scale; `unchecked` does
    not. A function of two points on different scales raises `ValueError`; convert with `to` first.
    """

    valence: float
    arousal: float
    scale: Scale = PUBLIC

    def __post_init__(self) -> None:
        self.check()

    @classmethod
    def unchecked(cls, valence: float, arousal: float, scale: Scale = PUBLIC) -> Affect:
        """Return a point that may lie outside the scale or be NaN, as a model's prediction may.

        Whoever needs a point on the scale calls `check`. Distances to it may be NaN.
        """
        affect = object.__new__(cls)
        for name, value in (("valence", valence), ("arousal", arousal), ("scale", scale)):
            object.__setattr__(affect, name, value)
        return affect

    @classmethod
    def optional(
        cls, valence: float | None, arousal: float | None, scale: Scale = PUBLIC
    ) -> Affect | None:
        """Return the point of two numbers that are given together or not at all (None).

        Raises:
            UserError: one of them alone, a number off the scale.
        """
        if valence is None and arousal is None:
            return None
        if valence is None or arousal is None:
            raise UserError("valence and arousal go together", fix="give both, or neither")
        return cls(valence, arousal, scale)

    @property
    def coordinates(self) -> tuple[float, float]:
        """(valence, arousal)."""
        return self.valence, self.arousal

    def check(self) -> None:
        """Raise UserError when a coordinate is not finite or lies outside the scale."""
        self.scale.check(self.valence, "valence")
        self.scale.check(self.arousal, "arousal")

    def to(self, scale: Scale) -> Affect:
        """Return the same point on another scale."""
        return Affect(
            self.scale.convert(self.valence, scale), self.scale.convert(self.arousal, scale), scale
        )

    def errors(self, other: Affect) -> tuple[float, float]:
        """Return (|ΔV|, |ΔA|) in units of the common scale.

        Ref: V-Error and A-Error, arXiv 2501.05710 (EmotiCrafter), section 4.2.
        """
        if self.scale != other.scale:
            raise ValueError(
                f"mixed affect scales {self.scale} and {other.scale}; convert with .to()"
            )
        return abs(self.valence - other.valence), abs(self.arousal - other.arousal)

    def distance(self, other: Affect) -> float:
        """Return |ΔV| + |ΔA| in units of the common scale."""
        return sum(self.errors(other))

    def nearness(self, other: Affect) -> float:
        """Return 1 - distance / largest distance on the scale, in [0, 1]; 1 for equal points."""
        return 1 - self.distance(other) / (2 * self.scale.span)
