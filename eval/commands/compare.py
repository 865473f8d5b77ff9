"""`python -m eval compare`: two reports beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emosym.console.options import AsJson, Plugins
from emosym.console.terminal import print_json
from emosym.errors import UserError


def compare(
    first: Annotated[Path, typer.Argument(help="report.json, or the folder of a run.")],
    second: Annotated[Path, typer.Argument(help="The report that is compared with the first.")],
    as_json: AsJson = False,
    plugins: Plugins = None,
) -> None:
    """Show the metrics of two reports, and which of them are better in the second.

    For a training run, the metrics after training are used. A change that may be noise is "unsure":
    its 95 % interval, paired by item, contains 0, or the reports have not the same items.
    """
    from emosym.console.terminal import console
    from eval.reports.comparison import side_by_side, tables
    from eval.reports.table import comparison_table

    report = side_by_side(read_report(first), read_report(second))
    by_section = tables(report)
    if not any(by_section.values()):
        raise UserError(f"{first} and {second} hold no metrics", expected="reports of evaluations")
    if not as_json:
        console().print(comparison_table(report, ("first", "second")))
        return
    metrics = [
        {
            "section": section,
            "name": row.name,
            "title": row.title,
            "better": row.better,
            "first": row.before,
            "second": row.after,
            "first_interval": row.before_interval,
            "second_interval": row.after_interval,
            "change": row.change,
            "change_interval": row.change_interval,
            "verdict": row.verdict,
        }
        for section, rows in by_section.items()
        for row in rows
    ]
    print_json({"first": str(first), "second": str(second), "metrics": metrics})


def read_report(path: Path) -> dict[str, Any]:
    """Return a report; raise UserError for a file that cannot be read or is no report."""
    from emosym.strict_json import BadJson, read_json
    from eval.reports.comparison import check_report

    file = path / "report.json" if path.is_dir() else path
    try:
        if file.exists() and not file.is_file():  # reading a pipe or a device may never end
            raise UserError(
                f"cannot read {file}",
                got="no regular file",
                expected="the report.json of `python -m eval run`",
            )
        report = read_json(file.read_bytes())
    except (OSError, BadJson) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot read {file}", got=reason, expected="the report.json of `python -m eval run`"
        ) from error
    if not isinstance(report, dict):
        raise UserError(f"{file} is no report", got=type(report).__name__, expected="an object")
    try:
        check_report(report)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return report
