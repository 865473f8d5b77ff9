"""Progress on stderr: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from emosym.console.terminal import console

FIRST = 2.0
"""Seconds of silence in a log: shorter work prints nothing there."""
INTERVAL = 10.0
"""Seconds between two lines in a log."""

Show = Callable[[int, int], None]
"""Updates a progress with the numbers (done, total)."""


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Show]:
    """Show progress on stderr with count and time left; yield its update function.

    On a terminal it is a bar that disappears at the end. Elsewhere it is a line after `FIRST`
    seconds, then one at most every `INTERVAL` seconds, and one at the end.
    """
    screen = console(stderr=True)
    if not screen.is_terminal:
        lines = ProgressLines(what)
        yield lines.show
        lines.finish()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=screen, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class ProgressLines:
    """The progress of one piece of work as lines on stderr."""

    def __init__(self, what: str, done: int = 0) -> None:
        self._what = what
        self._begun = time.monotonic()
        self._began_at = self._done = done
        self._total = 0
        self._next = self._begun + FIRST
        self._printed: int | None = None

    def show(self, done: int, total: int) -> None:
        """Note the numbers, and print them if a line is due."""
        self._done, self._total = done, total
        if time.monotonic() >= self._next:
            self._print()

    def finish(self) -> None:
        """Print the final numbers if lines were printed before."""
        if self._printed not in (None, self._done):
            self._print()

    def time_left(self) -> str:
        """Return the time that the rest takes at the rate so far; empty while it is unknown."""
        done = self._done - self._began_at
        if not done or self._done >= self._total:
            return ""
        seconds = (time.monotonic() - self._begun) / done * (self._total - self._done)
        return f", {duration(seconds)} left"

    def _print(self) -> None:
        self._printed = self._done
        self._next = time.monotonic() + INTERVAL
        of = f"/{self._total}" if self._total else ""
        line = f"{self._what} {self._done}{of}{self.time_left()}"
        print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return a time as `m:ss`, or `h:mm:ss`."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
