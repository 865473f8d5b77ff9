"""Progress in a log: nothing for short work, bounded lines for long work."""

from __future__ import annotations

import io
import sys

import pytest

from emosym.console import progress as module
from emosym.console.progress import FIRST, INTERVAL, duration, progress


class Clock:
    """A monotonic clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def lines_of(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_short_work_prints_nothing(clock: Clock, capsys) -> None:
    with progress("drawing", 100) as show:
        for done in range(100):
            show(done + 1, 100)
        clock.now += FIRST * 0.9
    assert lines_of(capsys) == []


def test_long_work_prints_lines_at_intervals(clock: Clock, capsys) -> None:
    """400 updates in 100 seconds: a line after 2, then each 10, and the last."""
    with progress("drawing", 400) as show:
        for done in range(400):
            clock.now += 0.25
            show(done + 1, 400)
    found = lines_of(capsys)
    assert found[0] == "drawing 8/400, 1:38 left"
    assert found[1] == "drawing 48/400, 1:28 left"
    assert found[-1] == "drawing 400/400"
    assert len(found) == 2 + int((100 - FIRST) / INTERVAL)


def test_a_total_that_is_not_known_is_left_out(clock: Clock, capsys) -> None:
    with progress("checking") as show:
        clock.now += FIRST
        show(3, 0)
    assert lines_of(capsys) == ["checking 3"]


def test_a_terminal_gets_a_bar(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with progress("drawing", 4) as show:
        show(4, 4)
    assert "drawing" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (36061, "10:01:01")],
)
def test_a_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
