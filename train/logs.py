"""The logs of a run: metrics.jsonl, TensorBoard, a progress bar on standard error."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from emosym.console.terminal import console
from emosym.errors import UserError
from emosym.files import write_bytes
from train.distributed import ranks

METRICS = "metrics.jsonl"


class Logs:
    """Writes on the first rank only. On resume, rows of steps that will run again are dropped."""

    def __init__(self, run: Path, start: int, total: int, *, writes: bool) -> None:
        self.writes = writes
        self.total = total
        path = run / METRICS
        with ranks.raise_together():
            if writes:
                _drop_from(path, start)
        if not writes:
            return
        self._file = path.open("a", buffering=1)
        self._board = SummaryWriter(run / "tensorboard", purge_step=start)
        self._progress = Progress(
            TextColumn("{task.description:<17}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console(stderr=True),
        )
        self._task = self._progress.add_task("start", total=total, completed=start, note="")
        self._progress.start()
        self._plain = not self._progress.console.is_terminal
        self._printed = time.monotonic()

    def row(self, step: int, phase: str, metrics: dict[str, float], samples_per_s: float) -> None:
        """Record one step; metrics are named `phase/metric`."""
        if not self.writes:
            return
        # JSON has no NaN: such a metric is null. The loss is always finite.
        named = {
            f"{phase}/{name}": value if math.isfinite(value) else None
            for name, value in metrics.items()
        }
        memory = peak_memory_gb()
        line = {"step": step, "phase": phase, **named, "samples_per_s": round(samples_per_s, 2)}
        line |= {name: round(size, 3) for name, size in memory.items()}
        self._file.write(json.dumps(line) + "\n")
        for name, value in named.items():
            if value is not None:
                self._board.add_scalar(name, value, step)
        shown = [
            f"{k} {metrics[k]:.3f}" for k in ("loss", "reward", "reward_total") if k in metrics
        ]
        sizes = [f"{name.removesuffix('_memory_gb')} {gb:.1f} GB" for name, gb in memory.items()]
        note = "  ".join([*shown, f"{samples_per_s:.0f}/s", *sizes])
        self._progress.update(self._task, description=phase, completed=step + 1, note=note)
        if self._plain and (time.monotonic() - self._printed > 10 or step + 1 == self.total):
            self._printed = time.monotonic()
            print(f"step {step + 1}/{self.total}  {phase}  {note}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush and stop the bar."""
        if self.writes:
            self._progress.stop()
            self._file.close()
            self._board.close()


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
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            if json.loads(line)["step"] < step:
                kept.append(line)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if not line.endswith(b"\n"):
                continue  # cut short by a crash; the step will run again
            raise UserError(
                f"{path}:{number}: not a row of metrics",
                got=error,
                fix="correct or delete the line",
            ) from error
    write_bytes(path, b"".join(line.rstrip() + b"\n" for line in kept))
