"""Filters of entries, as SQL conditions with bound values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from emosym.affect.taxonomies import mikels
from emosym.errors import UserError, unknown
from memory_bank.store.entry import SOURCES, Source, check_integer

COLUMNS = ("confidence", "contrast")
"""Scores stored in a column of their own; others are looked up in an entry's `scores`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Conditions that an entry must all meet. A missing step or score meets no bound.

    Raises `UserError` for an unknown source or emotion, a bound that is not finite and a step
    outside 64 bits.
    """

    emotion: str | None = None
    """Its label: the requested emotion, or else the predicted one."""
    source: Source | None = None
    min_scores: Mapping[str, float] = field(default_factory=dict)
    """Name of a score (`confidence`, `contrast` or a judge's) -> lowest value."""
    max_scores: Mapping[str, float] = field(default_factory=dict)
    """Name of a score -> highest value."""
    min_step: int | None = None
    """First training step."""
    max_step: int | None = None
    """Last training step."""

    def __post_init__(self) -> None:
        if self.source is not None and self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)
        if self.emotion is not None:
            object.__setattr__(self, "emotion", mikels(self.emotion))
        check_integer("min_step", self.min_step)
        check_integer("max_step", self.max_step)
        for bounds in (self.min_scores, self.max_scores):
            for name, bound in bounds.items():
                if not math.isfinite(bound):
                    raise UserError(f"the bound of {name}", got=bound, expected="a finite number")

    def __bool__(self) -> bool:
        return self != Filter()

    @property
    def named_scores(self) -> set[str]:
        """Names of the scores used that are no columns."""
        return {*self.min_scores, *self.max_scores} - set(COLUMNS)

    def where(self) -> tuple[str, dict[str, object]]:
        """Return SQL conditions, each led by AND, and the values they bind."""
        conditions: dict[str, tuple[str, object]] = {
            "source": ("source = :source", self.source),
            "emotion": ("coalesce(emotion, predicted) = :emotion", self.emotion),
            "min_step": ("step >= :min_step", self.min_step),
            "max_step": ("step <= :max_step", self.max_step),
        }
        sql = "".join(f" AND {text}" for text, value in conditions.values() if value is not None)
        values = {name: value for name, (_, value) in conditions.items() if value is not None}
        for sign, bounds in ((">=", self.min_scores), ("<=", self.max_scores)):
            for name, bound in bounds.items():
                place = len(values)
                score = f"(SELECT value FROM json_each(scores) WHERE key = :name{place})"
                if name in COLUMNS:
                    score = name
                else:
                    values[f"name{place}"] = name
                sql += f" AND {score} {sign} :bound{place}"
                values[f"bound{place}"] = float(bound)
        return sql, values
