"""The metrics of a run's steps: metrics.jsonl, trackers, and a line of progress on stderr."""

from __future__ import annotations

import dataclasses
import json
import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from emosym.console.progress import FIRST, INTERVAL, duration
from emosym.console.terminal import console
from emosym.errors import UserError
from emosym.files import write_bytes
from train.config import RunConfig
from train.distributed import ranks
from train.logs.trackers import Tracker, open_trackers

METRICS = "metrics.jsonl"
SHOWN = ("loss", "reward", "reward_total")
"""Metrics of a phase in the line of progress."""


class Logs:
    """Writes on the first rank only. On resume, rows of steps that will run again are dropped."""

    def __init__(
        self,
        run: Path,
        start: int,
        phases: Sequence[str],
        *,
        trackers: Sequence[Tracker] = (),
        writes: bool,
    ) -> None:
        """Open the logs of a run.

        Args:
            run: folder of the run.
            start: step that runs next.
            phases: phase of each step of the run.
            trackers: these get every row too; they are closed with the logs.
            writes: whether this process is the one that writes.
        """
        self.writes = writes
        self.total = len(phases)
        path = run / METRICS
        with ranks.raise_together():
            if writes:
                _drop_from(path, start)
        if not writes:
            return
        self._file = path.open("a", buffering=1)
        self._trackers = trackers
        self._clock = TimeLeft(phases[start:])
        screen = console(stderr=True)
        self._plain = not screen.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:<17}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=screen,
            disable=self._plain,
        )
        self._task = self._progress.add_task("start", total=self.total, completed=start, note="")
        self._progress.start()
        self._due = time.monotonic() + FIRST

    def row(
        self,
        step: int,
        phase: str,
        metrics: Mapping[str, float],
        samples_per_s: float,
        rates: Mapping[str, float] | None = None,
        data: Mapping[str, float] | None = None,
        evaluated: Mapping[str, float] | None = None,
        sheet: Image.Image | None = None,
    ) -> None:
        """Record one step.

        Args:
            step: the step.
            phase: its phase.
            metrics: of the phase; recorded as `phase/metric`.
            samples_per_s: samples of the step in a second.
            rates: the learning rate of each part that moved; recorded as `lr/part`.
            data: of the run's data; recorded as `data/metric`.
            evaluated: held-out scores after the step; recorded as `evaluate/score`.
            sheet: images generated after the step, for the trackers.
        """
        if not self.writes:
            return
        rates, evaluated = rates or {}, evaluated or {}
        # JSON has no NaN: such a metric is null. The loss is always finite.
        named = {
            name: value if math.isfinite(value) else None
            for name, value in {
                **{f"{phase}/{name}": value for name, value in metrics.items()},
                **{f"lr/{name}": value for name, value in rates.items()},
                **{f"data/{name}": value for name, value in (data or {}).items()},
                **{f"evaluate/{name}": value for name, value in evaluated.items()},
            }.items()
        }
        memory = {name: round(size, 3) for name, size in peak_memory_gb().items()}
        speed = {"samples_per_s": round(samples_per_s, 2), **memory}
        self._file.write(json.dumps({"step": step, "phase": phase, **named, **speed}) + "\n")
        known = {name: value for name, value in (named | speed).items() if value is not None}
        for tracker in self._trackers:
            tracker.log(step, known)
            if sheet is not None:
                tracker.image(step, "samples", sheet)
        self._clock.done(phase)
        self._show(step, phase, line(metrics, samples_per_s, rates, memory, self._clock.left()))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the bar while other work shows its own; its time is not that of a step."""
        if not self.writes:
            yield
            return
        self._progress.stop()
        begun = time.monotonic()
        yield
        self._clock.skip(time.monotonic() - begun)
        self._progress.start()

    def close(self) -> None:
        """Flush, and stop the bar."""
        if self.writes:
            self._progress.stop()
            self._file.close()
            for tracker in self._trackers:
                tracker.close()

    def _show(self, step: int, phase: str, note: str) -> None:
        self._progress.update(self._task, description=phase, completed=step + 1, note=note)
        now = time.monotonic()
        if self._plain and (now >= self._due or step + 1 == self.total):
            self._due = now + INTERVAL
            print(f"step {step + 1}/{self.total}  {phase}  {note}", file=sys.stderr, flush=True)


def open_logs(run: Path, config: RunConfig, start: int, phases: Sequence[str]) -> Logs:
    """Open the logs and trackers of a run at step `start`; they write on the first rank.

    Raises:
        UserError: a tracker that cannot start, rows that cannot be read; on one rank.
        OtherRankError: the same, on the others.
    """
    trackers: list[Tracker] = []
    with ranks.raise_together():
        if ranks.is_first():
            plain = dataclasses.asdict(config)
            trackers = open_trackers(config.report_to, run, start, config.project, plain)
    return Logs(run, start, phases, trackers=trackers, writes=ranks.is_first())


class TimeLeft:
    """The time that the remaining steps of a run take; a phase's steps take the same each."""

    def __init__(self, phases: Sequence[str]) -> None:
        self._remaining = Counter(phases)
        self._steps: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._last = time.monotonic()

    def done(self, phase: str) -> None:
        """Count a step that ends now."""
        now = time.monotonic()
        self._steps[phase] += 1
        self._seconds[phase] += now - self._last  # type: ignore[assignment]  # Counter of floats
        self._remaining[phase] -= 1
        self._last = now

    def skip(self, seconds: float) -> None:
        """Leave a time that no step took out of the next one."""
        self._last += seconds

    def left(self) -> float:
        """Return the seconds left; a phase that has not run counts with the mean of the others."""
        mean = self._seconds.total() / max(1, self._steps.total())
        return sum(
            count * (self._seconds[phase] / self._steps[phase] if self._steps[phase] else mean)
            for phase, count in self._remaining.items()
        )


def line(
    metrics: Mapping[str, float],
    samples_per_s: float,
    rates: Mapping[str, float],
    memory: Mapping[str, float],
    seconds_left: float,
) -> str:
    """Return a step's metrics for the line of progress, with their units."""
    shown = [f"{name} {metrics[name]:.3f}" for name in SHOWN if name in metrics]
    if rates:
        shown.append("lr " + " ".join(f"{rate:.1e}" for rate in rates.values()))
    shown.append(f"{samples_per_s:.3g} samples/s")
    shown += [f"{name.removesuffix('_memory_gb')} {size:.1f} GB" for name, size in memory.items()]
    return "  ".join([*shown, f"{duration(seconds_left)} left"])


def peak_memory_gb() -> dict[str, float]:
    """Return the peaks so far, in GB: `host_memory_gb`, and `gpu_memory_gb` where there is a GPU.

    The first is the resident memory of this process; the second is the GPU memory that torch
    reserved.
    """
    peaks = {"host_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
    if torch.cuda.is_available():
        peaks["gpu_memory_gb"] = torch.cuda.max_memory_reserved() / 1e9
    return peaks


def _drop_from(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for number, row in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            if json.loads(row)["step"] < step:
                kept.append(row)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if not row.endswith(b"\n"):
                continue  # cut short by a crash; the step will run again
            raise UserError(
                f"{path}:{number}: not a row of metrics",
                got=error,
                fix="correct or delete the line",
            ) from error
    write_bytes(path, b"".join(row.rstrip() + b"\n" for row in kept))
