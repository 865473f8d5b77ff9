"""Comparison of two measurements: the metrics of reports, and whether a change is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from emosym.errors import UserError
from emosym.tasks.base import Better
from emosym.tasks.registry import TASKS
from eval.scores import LARGEST, Interval, change_interval, check_items, is_number

Report = Mapping[str, Any]
"""A report.json, see `eval.reports.report.write_report`."""
Verdict = Literal["better", "worse", "same", "unsure"]
Section = Literal["understanding", "generation"]
Metrics = Mapping[str, tuple[str, Better | None]]
"""Metric -> (title, which way is better); None for a baseline, which does not improve."""

SECTIONS: dict[Section, Metrics] = {
    "understanding": {
        "accuracy": ("emotion accuracy", "higher"),
        "macro_f1": ("emotion macro-F1", "higher"),
        "v_mae": ("valence MAE", "lower"),
        "v_mae_mean": ("valence MAE of the mean predictor", None),
        "a_mae": ("arousal MAE", "lower"),
        "a_mae_mean": ("arousal MAE of the mean predictor", None),
        "v_pearson": ("valence Pearson r", "higher"),
        "a_pearson": ("arousal Pearson r", "higher"),
        "v_ccc": ("valence CCC", "higher"),
        "a_ccc": ("arousal CCC", "higher"),
        "answer_valid": ("answers that parse", "higher"),
    },
    "generation": {
        "oracle_v_error": ("valence error, oracle", "lower"),
        "oracle_a_error": ("arousal error, oracle", "lower"),
        "judge_v_error": ("valence error, judge", "lower"),
        "judge_a_error": ("arousal error, judge", "lower"),
        "judge_accuracy": ("requested emotion, judge", "higher"),
        "diversity": ("diversity", "higher"),
    },
}

CHANGES = "changes"
"""Key of the paired intervals of changes, in the scores after."""

COMMON_METRICS: Metrics = {"well_formed": ("answers that parse", "higher")}
"""Metrics of every task, after its own (`Task.metrics`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric before and after; None means undefined or not measured."""

    name: str
    title: str
    better: Better | None
    before: float | None
    after: float | None
    before_interval: Interval | None = None
    after_interval: Interval | None = None
    change_interval: Interval | None = None
    """Of the change, paired by item; None where it cannot be computed."""

    @property
    def change(self) -> float | None:
        """Return after − before; None where either is missing, and for a baseline."""
        if self.before is None or self.after is None or self.better is None:
            return None
        return self.after - self.before

    @property
    def verdict(self) -> Verdict | None:
        """Return whether the metric improved; None without a change.

        A change that is invisible in three decimals is "same". Another one is "better" or "worse"
        if its paired interval does not contain 0, and else "unsure".
        """
        if self.change is None or self.before is None or self.after is None:
            return None
        if abs(self.change) < 0.0005 or number(self.before) == number(self.after):
            return "same"
        if self.change_interval is None:
            return "unsure"
        low, high = self.change_interval
        if low <= 0 <= high:
            return "unsure"
        return "better" if (low > 0) == (self.better == "higher") else "worse"


def check_report(report: Report) -> None:
    """Raise UserError for a report whose sections do not hold metrics as `tables` reads them."""
    for section, metrics in SECTIONS.items():
        measured = _mapping(report.get(section), section)
        for when in ("before", "after"):
            _check_metrics(measured.get(when), f"{section}.{when}", metrics)
    measured = _mapping(report.get("tasks"), "tasks")
    for when in ("before", "after"):
        for task, found in _mapping(measured.get(when), f"tasks.{when}").items():
            _check_metrics(found, f"tasks.{when}.{task}", task_metrics(task, {task: found}))


def _check_metrics(found: object, path: str, metrics: Metrics) -> None:
    scores = _mapping(found, path)
    for name in metrics:
        value = scores.get(name)
        if value is not None and not is_number(value):
            raise UserError(
                f"{path}.{name}",
                got=repr(value),
                expected=f"null or a number within ±{LARGEST:g}",
            )
    for key in ("intervals", CHANGES):
        for name, interval in _mapping(scores.get(key), f"{path}.{key}").items():
            pair = isinstance(interval, (list, tuple)) and len(interval) == 2
            if interval is not None and not (pair and all(map(is_number, interval))):
                raise UserError(
                    f"{path}.{key}.{name}",
                    got=repr(interval),
                    expected=f"null or two numbers within ±{LARGEST:g}",
                )
    check_items(scores.get("items"), f"{path}.items")
    _check_confusion(scores.get("confusion"), scores.get("labels"), path)


def _check_confusion(counts: Any, labels: Any, path: str) -> None:
    if counts is None:
        return
    named = isinstance(labels, (list, tuple)) and all(isinstance(one, str) for one in labels)
    square = (
        named
        and isinstance(counts, (list, tuple))
        and len(counts) == len(labels)
        and all(isinstance(row, (list, tuple)) and len(row) == len(labels) for row in counts)
        and all(type(count) is int and count >= 0 for row in counts for count in row)
    )
    if not square:
        raise UserError(f"{path}.confusion", expected="a row of counts for each of its labels")


def _mapping(value: object, path: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"{path} of a report", got=type(value).__name__, expected="an object")
    return value or {}


def with_changes(report: Report) -> dict[str, Any]:
    """Return a report with the interval of each change, paired by item.

    They are the entry `CHANGES` of the scores after, metric -> interval or None, where there are
    scores of the same section or task before.
    """
    whole = dict(report)
    for section in SECTIONS:
        measured = report.get(section) or {}
        if measured.get("before") and measured.get("after"):
            whole[section] = {**measured, "after": _changed(measured["before"], measured["after"])}
    tasks = report.get("tasks") or {}
    if tasks.get("before") and tasks.get("after"):
        before, after = tasks["before"], tasks["after"]
        changed = {task: _changed(before[task], after[task]) for task in after if task in before}
        whole["tasks"] = {"before": before, "after": {**after, **changed}}
    return whole


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    ours, theirs = before.get("items") or {}, after.get("items") or {}
    changes = {name: change_interval(ours, theirs, name) for name in theirs.get("metrics", ())}
    return {**after, CHANGES: changes}


def tables(report: Report) -> dict[str, list[Row]]:
    """Return a report's metrics that were measured at least once, by section."""
    by_section: dict[str, list[Row]] = {section: rows(report, section) for section in SECTIONS}
    return by_section | {"tasks": task_rows(report)}


def rows(report: Report, section: Section) -> list[Row]:
    """Return the metrics of a report's section that were measured at least once."""
    measured = report.get(section) or {}
    return _rows(measured.get("before") or {}, measured.get("after") or {}, SECTIONS[section])


def task_rows(report: Report) -> list[Row]:
    """Return the metrics of each task, one task after the other."""
    measured = report.get("tasks") or {}
    before, after = measured.get("before") or {}, measured.get("after") or {}
    return [
        replace(row, name=f"{task}/{row.name}", title=f"{task}: {row.title}")
        for task in dict.fromkeys((*after, *before))
        for row in _rows(
            before.get(task) or {}, after.get(task) or {}, task_metrics(task, before, after)
        )
    ]


def task_metrics(task: str, *measured: Report) -> Metrics:
    """Return the metrics of a task.

    Of a task of a plugin that is not loaded, those that were measured are shown by their names.
    """
    if task in TASKS:
        return {**TASKS[task].metrics, **COMMON_METRICS}
    names = dict.fromkeys(name for one in measured for name in _mapping(one.get(task), task))
    return {
        name: (name, None) for name in names if name not in ("count", "intervals", "items", CHANGES)
    }


def side_by_side(first: Report, second: Report) -> dict[str, Any]:
    """Return one report that has the results of two: `before` is the first's, `after` the second's.

    The result of a report is what it measured last: `after`, or `before` where nothing followed.
    """
    merged: dict[str, Any] = {}
    for section in (*SECTIONS, "tasks"):
        results = [_result(report.get(section) or {}) for report in (first, second)]
        merged[section] = dict(zip(("before", "after"), results, strict=True))
    return with_changes(merged)


def _result(section: Mapping[str, Any]) -> Mapping[str, Any]:
    return section.get("after") or section.get("before") or {}


def _rows(before: Mapping[str, Any], after: Mapping[str, Any], metrics: Metrics) -> list[Row]:
    return [
        Row(
            name=name,
            title=title,
            better=better,
            before=before.get(name),
            after=after.get(name),
            before_interval=(before.get("intervals") or {}).get(name),
            after_interval=(after.get("intervals") or {}).get(name),
            change_interval=(after.get(CHANGES) or {}).get(name),
        )
        for name, (title, better) in metrics.items()
        if before.get(name) is not None or after.get(name) is not None
    ]


def signed(change: float | None) -> str:
    """Return a change with its sign and three decimals, or a dash."""
    return "–" if change is None else f"{change:+.3f}".replace("-", "−")


def number(value: float | None) -> str:
    """Return a metric with three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


MARKS: dict[Verdict | None, str] = {
    "better": "▲",
    "worse": "▼",
    "same": "=",
    "unsure": "?",
    None: "",
}
"""▲ means better, also where the number fell; ? that the change may be noise."""
