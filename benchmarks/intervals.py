"""Means over seeds with 95 % confidence intervals (Student's t), and changes paired by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from benchmarks.results import Row


def half_width(values: Sequence[float]) -> float | None:
    """Return half the width of the 95 % interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    quantile = stats.t.ppf(0.975, len(values) - 1)
    return float(quantile * np.std(values, ddof=1) / len(values) ** 0.5)


def interval(values: Sequence[float], sign: str = "") -> str:
    """Return mean and 95 % interval, such as `0.850 ± 0.010`; of one value only the value."""
    mean, half = f"{np.mean(values):{sign}.3f}", half_width(values)
    return mean if half is None else f"{mean} ± {half:.3f}"


def changes(rows: Sequence[Row], base: Sequence[Row], metric: str) -> list[float]:
    """Return a metric's change from `base` to `rows`, for each seed in which both have it."""
    before = {row["seed"]: row[metric] for row in base}
    return [
        row[metric] - before[row["seed"]]
        for row in rows
        if row[metric] is not None and before.get(row["seed"]) is not None
    ]
