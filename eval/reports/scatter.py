"""Predicted against true valence and arousal, as small charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emosym.affect.scales import PUBLIC

SIDE = 240
"""Of a chart, in pixels."""
MARGIN = 30
"""For the labels, left and below."""
MOST = 1000
"""Points of a chart; of more, every n-th is drawn."""
AXES = {"v": "valence", "a": "arousal"}
"""Prefix of a metric -> name."""
SCORES = {"pearson": "r", "mae": "MAE", "ccc": "CCC"}
"""Metric of an axis -> its name below a chart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """The predictions of one axis in one measurement."""

    title: str
    points: tuple[tuple[float, float], ...]
    """In the chart's pixels: true values to the right, predictions upwards."""
    scores: dict[str, float | None]
    """Name -> value over all images."""


def place(value: float) -> float:
    """Return the distance in pixels of a value from the low end of an axis."""
    return (value - PUBLIC.low) / (PUBLIC.high - PUBLIC.low) * (SIDE - MARGIN)


def scatters(understanding: Mapping[str, Any]) -> list[Scatter]:
    """Return the charts of a report's section: each axis, before and after.

    A measurement without rows of items has no chart.
    """
    charts = []
    for axis, name in AXES.items():
        for when in ("before", "after"):
            scores = understanding.get(when) or {}
            stored = ((scores.get("items") or {}).get("metrics") or {}).get(f"{axis}_mae") or {}
            rows = [row for row in stored.get("rows", ()) if row is not None]
            if rows:
                charts.append(
                    Scatter(
                        title=f"{name}, {when}",
                        points=tuple(
                            (MARGIN + place(true), SIDE - MARGIN - place(predicted))
                            for predicted, true in rows[:: -(-len(rows) // MOST)]
                        ),
                        scores={
                            title: scores.get(f"{axis}_{metric}")
                            for metric, title in SCORES.items()
                        },
                    )
                )
    return charts
