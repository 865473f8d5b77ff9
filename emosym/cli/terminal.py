"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

WIDE = 10_000
"""Columns of an output that is no terminal: each row stays on its line for grep and less."""


def print_json(value: object) -> None:
    """Print a value as JSON: strictly, so that every program can read it."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows of text; nothing is cut, and only a terminal's own width folds long cells."""
    table = Table(*columns, title=Text(title), title_justify="left", show_header=any(columns))
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(table)


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
