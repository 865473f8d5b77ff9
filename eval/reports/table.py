"""The before/after table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from eval.reports.comparison import MARKS, number, signed, tables

STYLES = {"better": "green", "worse": "red", "same": "dim", None: "dim"}


def comparison_table(report: Mapping[str, object]) -> Table:
    """Return a rich table of a report: ▲ green where a metric got better, ▼ red where worse.

    A report that measured once has one column.
    """
    sections = tables(report)
    compared = any("before" in (report.get(section) or {}) for section in sections)
    table = Table(title="held-out data; V/A in [−3, 3] units", title_style="dim")
    table.add_column("metric")
    for heading in ("before", "after", "change") if compared else ("",):
        table.add_column(heading, justify="right")
    if compared:
        table.add_column("")
    for section, rows in sections.items():
        for place, row in enumerate(rows):
            if place == 0:
                table.add_section()
                table.add_row(f"[bold]{section}[/bold]")
            if not compared:
                table.add_row(row.title, number(row.after))
                continue
            style = STYLES[row.verdict]
            table.add_row(
                row.title,
                number(row.before),
                number(row.after),
                f"[{style}]{signed(row.change)}[/{style}]",
                f"[{style}]{MARKS[row.verdict]}[/{style}]",
            )
    return table
