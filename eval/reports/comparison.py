"""Before against after: which metrics are shown, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["higher", "lower"]
Verdict = Literal["better", "worse", "same"]
Section = Literal["understanding", "generation"]
Metrics = Mapping[str, tuple[str, Better | None]]
"""Metric -> (title, which way is better); None for a reference that has no better."""

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
        "judge_accuracy": ("emotion asked for, judge", "higher"),
        "diversity": ("diversity", "higher"),
    },
}

TASKS: Metrics = {
    "accuracy": ("accuracy", "higher"),
    "macro_f1": ("macro-F1", "higher"),
    "similarity": ("nearness to the right emotion", "higher"),
    "srcc": ("SRCC", "higher"),
    "plcc": ("PLCC", "higher"),
    "mae": ("MAE, on the question's scale", "lower"),
    "valence_mae": ("valence MAE", "lower"),
    "arousal_mae": ("arousal MAE", "lower"),
    "answered": ("answers that give a number", "higher"),
    "score": ("ranking score", "higher"),
    "single": ("single images", "higher"),
    "single_yes_no": ("single images, yes or no", "higher"),
    "single_what_how": ("single images, what or how", "higher"),
    "pair": ("pairs", "higher"),
    "pair_yes_no": ("pairs, yes or no", "higher"),
    "pair_what_how": ("pairs, what or how", "higher"),
    "emotion": ("about emotion", "higher"),
    "valence": ("about valence", "higher"),
    "arousal": ("about arousal", "higher"),
    "dominance": ("about dominance", "higher"),
    "chrf": ("chrF to the reference", "higher"),
    "suggestions": ("suggestions shared with the reference", "higher"),
    "exact": ("prompts as the reference", "higher"),
    "kept": ("prompts with all words of the reference", "higher"),
    "well_formed": ("answers that parse", "higher"),
}
"""What `eval.tasks.measure` measures, of whichever task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric before and after; None means undefined or not measured."""

    name: str
    title: str
    better: Better | None
    before: float | None
    after: float | None
    before_interval: tuple[float, float] | None = None
    after_interval: tuple[float, float] | None = None

    @property
    def change(self) -> float | None:
        """Return after − before; None where either is missing, and for a reference."""
        if self.before is None or self.after is None or self.better is None:
            return None
        return self.after - self.before

    @property
    def verdict(self) -> Verdict | None:
        """Return whether the metric moved the right way; None where that cannot be said.

        A change that three decimals do not show is "same".
        """
        if self.change is None:
            return None
        if abs(self.change) < 0.0005 or number(self.before) == number(self.after):
            return "same"
        return "better" if (self.change > 0) == (self.better == "higher") else "worse"


def tables(report: Mapping[str, object]) -> dict[str, list[Row]]:
    """Return a report's metrics that were measured at least once, by section."""
    return {section: rows(report, section) for section in SECTIONS} | {"tasks": task_rows(report)}


def rows(report: Mapping[str, object], section: Section) -> list[Row]:
    """Return the metrics of a report's section that were measured at least once."""
    part = report.get(section) or {}
    return _rows(part.get("before") or {}, part.get("after") or {}, SECTIONS[section])


def task_rows(report: Mapping[str, object]) -> list[Row]:
    """Return the metrics of each task, one task after the other."""
    part = report.get("tasks") or {}
    before, after = part.get("before") or {}, part.get("after") or {}
    return [
        replace(row, name=f"{task}/{row.name}", title=f"{task}: {row.title}")
        for task in dict.fromkeys((*after, *before))
        for row in _rows(before.get(task) or {}, after.get(task) or {}, TASKS)
    ]


def _rows(before: Mapping[str, object], after: Mapping[str, object], metrics: Metrics) -> list[Row]:
    return [
        Row(
            name=name,
            title=title,
            better=better,
            before=before.get(name),
            after=after.get(name),
            before_interval=(before.get("intervals") or {}).get(name),
            after_interval=(after.get("intervals") or {}).get(name),
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


MARKS: dict[Verdict | None, str] = {"better": "▲", "worse": "▼", "same": "=", None: ""}
"""Up means better, whichever way the number went."""
