"""Timing contenders in turns, so that changes of the machine's load affect all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Run = Callable[[int], list[float]]
"""Number of steps -> the seconds of each step."""
Times = dict[str, list[float]]
"""Contender -> the seconds of each of its steps."""


def clock(times: Times, name: str, run: Callable[..., object], *arguments: object) -> None:
    """Call `run(*arguments)` and append its seconds to `times[name]`."""
    start = time.perf_counter()
    run(*arguments)
    times.setdefault(name, []).append(time.perf_counter() - start)


def timed(step: Callable[[], object]) -> Run:
    """Return a `Run` that calls `step` and measures it."""

    def run(steps: int) -> list[float]:
        times: Times = {}
        for _ in range(steps):
            clock(times, "step", step)
        return times["step"]

    return run


def in_turns(runs: Mapping[str, Run], rounds: int, steps: int) -> Times:
    """Run all contenders one after the other in each round, `steps` steps each.

    One step of each before the first round is not counted: first use allocates memory.
    """
    for run in runs.values():
        run(1)
    times: Times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name] += run(steps)
    return times


def seconds_and_range(seconds: Sequence[float]) -> str:
    """Return the median and the range of step times as text."""
    median = statistics.median(seconds)
    return f"{median:6.2f} s a step [{min(seconds):.2f}, {max(seconds):.2f}]"
