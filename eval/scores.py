"""Scores of metrics over items: values, intervals, and the items' rows for paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from emosym.errors import UserError
from emosym.tasks import metrics
from emosym.tasks.base import Metric

LEVEL = 0.95
"""Confidence level of every interval."""
RESAMPLES = 500
"""Bootstrap resamples of the interval of a score."""
PAIRED_RESAMPLES = 1000
"""Bootstrap resamples of the interval of a change; its quantiles lie further out."""
FEWEST_ITEMS = 10
"""With fewer items the interval of a change is too narrow, so none is given."""

LARGEST = 1e50
"""Greatest magnitude of a number in a report: products of larger ones are infinite."""

METRICS: dict[str, Metric] = {
    metric.__name__: metric
    for metric in (
        metrics.mean,
        metrics.mae,
        metrics.accuracy,
        metrics.macro_f1,
        metrics.pearson,
        metrics.spearman,
        metrics.ccc,
    )
}
"""Metrics whose rows can be stored and compared later, by the name that is stored."""

Interval = tuple[float, float]
Items = Mapping[str, Any]
"""Plain data: `ids`, and by name of a metric `metric` (a key of `METRICS`), `options` (its keyword
arguments) and `rows` (for each id its values, or None where the metric does not cover the item)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric and its arrays [N]."""

    metric: Metric
    arrays: tuple[NDArray, ...]
    places: Sequence[int] | None
    """Which item each row is of; None if rows are not of single items."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of several metrics over the same items; None means undefined."""

    values: dict[str, float | None]
    intervals: dict[str, Interval | None]
    """Bootstrap interval of each metric over the items."""
    items: Items


def score(
    ids: Sequence[str],
    measured: Mapping[str, Measured],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Scores:
    """Return the scores of metrics over the items `ids`."""
    return Scores(
        values={name: one.metric(*one.arrays) for name, one in measured.items()},
        intervals={
            name: metrics.bootstrap(one.metric, *one.arrays, seed=seed, resamples=resamples)
            for name, one in measured.items()
        },
        items={
            "ids": list(ids),
            "metrics": {
                name: stored
                for name, one in measured.items()
                if (stored := _stored(one, len(ids))) is not None
            },
        },
    )


def change_interval(before: Items, after: Items, name: str) -> Interval | None:
    """Return the interval of the change of a metric between two measurements of the same items.

    Items are drawn with replacement, the same ones before and after. The percentiles are those of
    the expanded interval, which corrects the narrowness of the bootstrap on small samples.

    Returns:
        None if the measurements share fewer than `FEWEST_ITEMS` items with this metric, if either
        has none of them, or if the metric is undefined on more than half of the draws.

    Ref: Hesterberg 2015, What Teachers Should Know About the Bootstrap (arXiv 1411.5279), section
    on expanded percentile intervals.
    """
    sides = [side.get("metrics", {}).get(name) for side in (before, after)]
    if None in sides or len({(one["metric"], str(one["options"])) for one in sides}) > 1:
        return None
    rows = [
        dict(zip(side["ids"], one["rows"], strict=True))
        for side, one in zip((before, after), sides, strict=True)
    ]
    shared = [each for each in rows[0] if each in rows[1]]
    paired = sum(all(one[each] is not None for one in rows) for each in shared)
    if paired < FEWEST_ITEMS:
        return None
    metric = partial(METRICS[sides[0]["metric"]], **sides[0]["options"])
    tables = [_Table([one[each] for each in shared]) for one in rows]
    draws = np.random.default_rng(0).integers(len(shared), size=(PAIRED_RESAMPLES, len(shared)))
    changes = []
    for drawn in draws:
        was, became = (metric(*table.arrays(drawn)) for table in tables)
        if was is not None and became is not None:
            changes.append(became - was)
    if len(changes) * 2 < PAIRED_RESAMPLES:
        return None
    widened = math.sqrt(paired / (paired - 1)) * stdtrit(paired - 1, (1 + LEVEL) / 2)
    low, high = np.quantile(changes, ndtr([-widened, widened]))
    return float(low), float(high)


def check_items(items: object, path: str) -> None:
    """Raise UserError for items that are not as `Items` says; None is allowed."""
    if items is None:
        return
    if not isinstance(items, Mapping) or items.keys() != {"ids", "metrics"}:
        raise UserError(path, got=type(items).__name__, expected="an object of ids and metrics")
    ids, stored = items["ids"], items["metrics"]
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise UserError(f"{path}.ids", got=type(ids).__name__, expected="a list of texts")
    if len({*ids}) < len(ids):
        raise UserError(f"{path}.ids", got="an id that occurs twice", expected="each id once")
    for name, one in (stored if isinstance(stored, Mapping) else {"": stored}).items():
        if not (isinstance(one, Mapping) and _is_stored(one, len(ids))):
            raise UserError(
                f"{path}.metrics.{name}",
                expected="metric, options, and rows that fit them",
                fix="measure again with this version",
            )


def is_number(value: object) -> bool:
    """Return whether a value of a report is a number that can be computed with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_stored(one: Mapping[str, Any], count: int) -> bool:
    """Return whether plain data are the rows of a known metric over `count` items."""
    name, options, rows = one.get("metric"), one.get("options"), one.get("rows")
    if not (isinstance(name, str) and name in METRICS and isinstance(rows, list)):
        return False
    classes = options.get("classes") if isinstance(options, Mapping) else None
    if options != ({"classes": classes} if name == "macro_f1" else {}) or len(rows) != count:
        return False
    kinds: tuple[type, ...] = (int,) if name in ("accuracy", "macro_f1") else (int, float)
    numbers = [number for row in rows if isinstance(row, list) for number in row]
    if any(type(number) not in kinds or not is_number(number) for number in numbers):
        return False
    if name == "macro_f1" and not (
        type(classes) is int and 1 <= classes <= 1000 and all(0 <= n <= classes for n in numbers)
    ):
        return False
    width = 1 if name == "mean" else 2
    return all(row is None or (isinstance(row, list) and len(row) == width) for row in rows)


def _stored(measured: Measured, count: int) -> dict[str, Any] | None:
    """Return a metric and its rows as plain data; None without a name or without places."""
    metric: Any = measured.metric
    options: Mapping[str, Any] = {}
    if isinstance(metric, partial):
        metric, options = metric.func, metric.keywords
    name = getattr(metric, "__name__", "")
    if METRICS.get(name) is not metric or measured.places is None:
        return None
    rows: list[list[float] | None] = [None] * count
    for place, *row in zip(measured.places, *(a.tolist() for a in measured.arrays), strict=True):
        rows[place] = row
    return {"metric": name, "options": dict(options), "rows": rows}


class _Table:
    """The rows of a metric as an array; an item may have none."""

    def __init__(self, rows: Sequence[Sequence[float] | None]) -> None:
        known = [row for row in rows if row is not None]
        self._known = np.array([row is not None for row in rows])
        self._places = self._known.cumsum() - 1
        self._values = np.array(known)

    def arrays(self, drawn: NDArray) -> tuple[NDArray, ...]:
        """Return the arrays of the drawn items that have a row."""
        return tuple(self._values[self._places[drawn[self._known[drawn]]]].T)
