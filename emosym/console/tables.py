"""Tables for people, readable on a terminal and by grep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from emosym.affect.scales import Affect
from emosym.console.terminal import console
from emosym.errors import printable


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows of text without cutting any of it.

    On a terminal it is a box whose long cells are wrapped to the width. Elsewhere each row is one
    line, with columns two spaces apart and as wide as their content.
    """
    out = console()
    if not out.is_terminal:
        print("\n".join(([printable(title)] if title else []) + _lines(columns, rows)))
        return
    table = Table(
        *columns, title=Text(printable(title)), title_justify="left", show_header=any(columns)
    )
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*(Text("\n".join(map(printable, cell.splitlines()))) for cell in row))
    out.print(table)


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
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(set_cell_size, row, widths)).rstrip() for row in cells]
