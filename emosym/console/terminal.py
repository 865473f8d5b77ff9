"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def print_json(value: object) -> None:
    """Print a value as JSON: strictly, so that every program can read it."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows of text, of which nothing is cut.

    A terminal gets a box that folds long cells to its width; anything else, for grep and less, a
    line for each row, its columns two spaces apart and no wider than what is in them.
    """
    console = Console()
    if not console.is_terminal:
        print("\n".join(([title] if title else []) + _lines(columns, rows)))
        return
    table = Table(*columns, title=Text(title), title_justify="left", show_header=any(columns))
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines, below their headings where there are any."""
    cells = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    if any(columns):
        cells.insert(0, list(columns))
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(set_cell_size, row, widths)).rstrip() for row in cells]


def print_passage(heading: str, words: str) -> None:
    """Print a heading on a line of its own and, below it, indented and folded, its words."""
    console = Console()
    console.print(Text(heading), soft_wrap=True)
    console.print(Padding(Text(words), (0, 0, 0, 4)))


def print_facts(facts: Mapping[str, object], title: str = "") -> None:
    """Print names with their values."""
    print_table(("", ""), [(name, str(value)) for name, value in facts.items()], title)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr while it is a terminal; give the function that takes (done, total)."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def signed(value: float | None) -> str:
    """Return a valence or an arousal for people, `-` where there is none."""
    return "-" if value is None else f"{value:+.2f}"
