"""The table of a report, or of two beside each other, for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from emosym.errors import printable
from eval.reports.comparison import MARKS, Report, number, signed, tables

STYLES = {"better": "green", "worse": "red", "same": "dim", "unsure": "dim", None: "dim"}


def comparison_table(report: Report, headings: tuple[str, str] = ("before", "after")) -> Table:
    """Return a rich table of a report.

    ▲ green where a metric improved, ▼ red where it got worse, ? where the change may be noise: the
    paired 95 % interval of the change contains 0, or there are too few items.

    `headings` name the two measurements. A report with one measurement has one column.
    """
    sections = tables(report)
    compared = any("before" in (report.get(section) or {}) for section in sections)
    table = Table(title="held-out data; V/A in [−3, 3] units", title_style="dim")
    table.add_column("metric")
    for heading in (*headings, "change") if compared else ("",):
        table.add_column(heading, justify="right")
    if compared:
        table.add_column("")
    for section, rows in sections.items():
        for place, row in enumerate(rows):
            if place == 0:
                table.add_section()
                table.add_row(f"[bold]{section}[/bold]")
            if not compared:
                table.add_row(Text(printable(row.title)), number(row.after))
                continue
            style = STYLES[row.verdict]
            verdict = f"{MARKS[row.verdict]} {row.verdict}" if row.verdict else ""
            table.add_row(
                Text(printable(row.title)),
                number(row.before),
                number(row.after),
                f"[{style}]{signed(row.change)}[/{style}]",
                f"[{style}]{verdict}[/{style}]",
            )
    return table
