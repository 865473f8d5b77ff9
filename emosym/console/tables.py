"""Tables for people, readable on a terminal and by grep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from emosym.affect.scales import Affect
from emosym.console.terminal import console
from emosym.errors import printable


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    *,
    cut: Sequence[str] = (),
) -> None:
    """Print rows of text.

    On a terminal it is a box. Long cells are wrapped to its width, or, in a table with columns
    `cut`, every row is one line and these columns give way: what does not fit ends in an ellipsis.
    Elsewhere each row is one line with all of its text, its cells separated by tabs.
    """
    out = console()
    if not out.is_terminal:
        print("\n".join(([printable(title)] if title else []) + _lines(columns, rows)))
        return
    table = Table(
        *columns, title=Text(printable(title)), title_justify="left", show_header=any(columns)
    )
    for column in table.columns:
        column.overflow = "ellipsis" if cut else "fold"
        column.no_wrap = bool(cut) and column.header not in cut
    for row in rows:
        table.add_row(*(_cell(cell, one_line=bool(cut)) for cell in row))
    out.print(table)


def _cell(cell: str, *, one_line: bool) -> Text:
    lines = list(map(printable, cell.splitlines()))
    if one_line:
        return Text(" ".join(lines), no_wrap=True, overflow="ellipsis")
    return Text("\n".join(lines))


def print_facts(facts: Mapping[str, object], title: str = "") -> None:
    """Print names and values."""
    print_table(("", ""), [(name, str(value)) for name, value in facts.items()], title)


def signed(value: float | None) -> str:
    """Return a valence or an arousal with its sign and two decimals; `-` for None."""
    return "-" if value is None else f"{value:+.2f}"


def signed_affect(affect: Affect | None) -> tuple[str, str]:
    """Return `signed` of valence and of arousal; `-` for both of None."""
    return ("-", "-") if affect is None else (signed(affect.valence), signed(affect.arousal))


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines, below the column names if there are any."""
    cells = [[printable(" ".join(cell.splitlines())) for cell in row] for row in rows]
    if any(columns):
        cells.insert(0, list(columns))
    return list(map("\t".join, cells))
