"""Training curves: a run's metrics.jsonl, thinned and laid out as small line charts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

POINTS = 240
"""Points per chart; a longer series is averaged in bins of equal width."""
GAP = 0.03
"""A line breaks at a gap of more than this share of the chart's steps and four times the usual
distance of two points: other phases were trained meanwhile."""
RATE = "samples_per_s"
"""A metric of the run that depends on the phase."""

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 8, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A grid line: its place in the chart's pixels and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A line chart in its own pixels (`WIDTH` by `HEIGHT`)."""

    title: str
    lines: tuple[str, ...]
    """The line as SVG, "x,y x,y …", in pieces: it does not cross the steps of other phases."""
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The charts of a run by phase, and what could not be drawn."""

    phases: dict[str, list[Chart]]
    notes: list[str]


HEADINGS = {"lr": "learning rate", "evaluate": "held-out scores during training"}
"""Groups of metrics that are not a phase."""


def read_curves(path: Path) -> Curves:
    """Read `{"step", "phase", "<phase>/<metric>": number, …}` rows and chart each metric.

    A line that is not such a row (the last one of a killed run) or a value that is not finite is
    left out and named in `notes`. A missing file has no charts.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    notes: list[str] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            step = float(row["step"])
        except (ValueError, TypeError, KeyError):
            notes.append(f"{path.name}:{number}: not a row of metrics, left out")
            continue
        for name, value in row.items():
            if name == RATE and isinstance(row.get("phase"), str):
                name = f"{row['phase']}/samples/s"
            if name == "step" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if math.isfinite(value):
                series.setdefault(name, []).append((step, float(value)))
            else:
                notes.append(f"{path.name}:{number}: {name} is {value}, left out")
    phases: dict[str, list[Chart]] = {}
    for name, points in series.items():
        phase, slash, metric = name.partition("/")
        where, title = (phase, metric) if slash else ("run", name)
        where = HEADINGS.get(where, where)
        phases.setdefault(where, []).append(line_chart(title, points))
    return Curves(phases=phases, notes=notes)


def line_chart(title: str, points: Sequence[tuple[float, float]]) -> Chart:
    """Return the chart of (step, value) points; at least one."""
    pieces = _pieces(np.array(sorted(points, key=lambda point: point[0])))
    steps, values = np.concatenate(pieces).T
    left, right = _widened(steps)
    low, high = _widened(values)

    def x(step: float) -> float:
        return LEFT + (step - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    return Chart(
        title=title,
        lines=tuple(
            " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in piece) for piece in pieces
        ),
        across=tuple(
            Tick(at=x(tick), label=f"{tick:g}")
            for tick in MaxNLocator(4, integer=True).tick_values(left, right)
            if left <= tick <= right
        ),
        up=tuple(
            Tick(at=y(tick), label=f"{tick:.4g}")
            for tick in MaxNLocator(4).tick_values(low, high)
            if low <= tick <= high
        ),
        last=points[-1][1],
    )


def _pieces(points: np.ndarray) -> list[np.ndarray]:
    """Return (step, value) points, thinned and cut where the metric was not measured."""
    gaps = np.diff(points[:, 0])
    if not len(gaps):
        return [points]
    wide = max(GAP * (points[-1, 0] - points[0, 0]), 4 * float(np.median(gaps)))
    pieces = np.split(points, np.flatnonzero(gaps > wide) + 1)
    if len(points) <= POINTS:
        return pieces
    return [
        np.array([part.mean(axis=0) for part in np.array_split(piece, bins)])
        for piece in pieces
        for bins in [max(1, round(POINTS * len(piece) / len(points)))]
    ]


def _widened(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high > low:
        return low, high
    margin = abs(low) * 0.05 or 1.0  # a flat line still needs an axis
    return low - margin, high + margin
