"""The table and the plot of a part."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from benchmarks.intervals import changes, half_width, interval
from benchmarks.results import Row, markdown
from benchmarks.symbiosis.study import Part

ACROSS = 4
"""Panels beside each other in a plot."""
SEED, MEAN, FIRST = "#9ecae1", "#08519c", "#bdbdbd"
"""Colours of one seed, of the mean, and of the first arm's mean."""


def table(part: Part, rows: Sequence[Row]) -> str:
    """Return a Markdown table: what is measured by row, the arms by column.

    Values are means over seeds with 95 % confidence intervals (Student's t). In brackets stands the
    change against the first arm, paired by seed; it is bold where its interval does not contain 0.
    """
    groups = [[row for row in rows if row["arm"] == arm] for arm in part.arms]
    lines = [["seeds", *(str(len(group)) for group in groups)]]
    for fact, title in part.facts.items():
        lines.append([title, *(_mean(_values(group, fact)) for group in groups)])
    for metric, title in part.metrics.items():
        cells = [
            _cell(_values(group, metric), changes(group, groups[0], metric) if place else [])
            for place, group in enumerate(groups)
        ]
        lines.append([title, *cells])
    return markdown(["", *part.arms], lines)


def plot(part: Part, rows: Sequence[Row]) -> bytes:
    """Return a PNG: a panel for each metric, with the arms one below the other.

    Pale points are seeds; a dark point with its bar is their mean with its 95 % interval. The grey
    line is the mean of the first arm.
    """
    down = -(-len(part.metrics) // ACROSS)
    across = min(ACROSS, len(part.metrics))
    size = (1.8 + 2.4 * across, down * (0.9 + 0.24 * len(part.arms)))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True).flat
    # The metrics come first: they end first, and no panel after them is taken.
    for (metric, title), panel in zip(part.metrics.items(), panels, strict=False):
        for place, arm in enumerate(part.arms):
            values = _values([row for row in rows if row["arm"] == arm], metric)
            if not values:
                continue
            mean = float(np.mean(values))
            if not place:
                panel.axvline(mean, color=FIRST, linewidth=1, zorder=0)
            panel.plot(values, [place] * len(values), "o", color=SEED, markersize=3)
            panel.errorbar(
                mean, place, xerr=half_width(values), fmt="o", color=MEAN, markersize=4, capsize=2
            )
        panel.set_title(title, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.set_yticks(range(len(part.arms)), part.arms, fontsize=8)
        panel.set_ylim(len(part.arms) - 0.5, -0.5)
    for panel in panels:
        panel.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows if row[name] is not None]


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.0f}" if values else "–"


def _cell(values: Sequence[float], change: Sequence[float]) -> str:
    if not values:
        return "–"
    text = interval(values)
    if not change:
        return text
    half, told = half_width(change), interval(change, sign="+")
    certain = half is not None and abs(np.mean(change)) > half
    return f"{text} (**{told}**)" if certain else f"{text} ({told})"
