"""Processes that train, forked from one that has imported the trainer: an import takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240
"""Seconds after which a process hangs; a loaded machine is slow."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.train.probes"])


def environment(rank: int = 0, size: int = 1, port: int | None = None) -> dict[str, str]:
    """Return the environment of a rank; a world of one has no launcher."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    kept |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    kept["PYTHONPATH"] = str(ROOT)
    if port is not None:
        here = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_PORT": port}
        kept |= {name: str(value) for name, value in here.items()}
        kept["MASTER_ADDR"] = "127.0.0.1"
    return kept


@dataclass
class Training:
    """`python -m train ARGS`, in a process that was forked instead of started."""

    args: Sequence[object]
    env: dict[str, str] = field(default_factory=environment)
    before: Callable[[], None] | None = None
    """Runs in the process before anything else."""

    def __post_init__(self) -> None:
        self.kept = tempfile.TemporaryDirectory(prefix="emosym-test-")
        self.folder = Path(self.kept.name)
        # The server is started by the first fork and keeps the environment it finds.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        words = [str(arg) for arg in self.args]
        self.process = _forks.Process(
            target=_train, args=(words, self.env, self.folder, self.before), daemon=True
        )
        self.process.start()

    def wait(self) -> Training:
        """Wait for the end; a process that hangs fails the test."""
        self.process.join(LIMIT)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"hangs: {self.args}\n{self.err}")
        return self

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to this process alone."""
        os.kill(self.process.pid, number)

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until something was done by the process."""
        end = time.monotonic() + LIMIT
        while not happened():
            assert self.process.is_alive(), f"ended early with {self.code}\n{self.err}"
            assert time.monotonic() < end, f"never happened\n{self.err}"
            time.sleep(0.002)

    @property
    def code(self) -> int:
        """Exit code; minus the signal that killed it."""
        return self.process.exitcode

    @property
    def out(self) -> str:
        """Everything on standard output so far."""
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        """Everything on standard error so far."""
        path = self.folder / "err"
        return path.read_text() if path.exists() else ""

    @property
    def errors(self) -> list[str]:
        """The lines that a person reads as errors."""
        return [line for line in self.err.splitlines() if line.startswith(("error:", "Traceback"))]


def train(*args: object, before: Callable[[], None] | None = None) -> Training:
    """Run `python -m train ARGS` to its end."""
    return Training(args, before=before).wait()


def train_in_ranks(
    *args: object, size: int = 2, before: Mapping[int, Callable[[], None]] | None = None
) -> list[Training]:
    """Start `python -m train ARGS` on several ranks; `before` is for some of them."""
    port, first = free_port(), before or {}
    return [Training(args, environment(rank, size, port), first.get(rank)) for rank in range(size)]


def refused(done: Training) -> str:
    """Return the one line of error that a refused command prints."""
    assert done.code == 2, done.err
    assert len(done.errors) == 1, done.err
    return done.errors[0]


def in_ranks(probe: Callable[..., Any], *args: object, size: int = 1) -> list[Any]:
    """Return what `probe(*args)` returns on each rank of a world of `size` processes."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="emosym-test-") as name:
        files = [Path(name) / f"{rank}.pt" for rank in range(size)]
        processes = [
            _forks.Process(
                target=_probe, args=(probe, args, environment(rank, size, port), file), daemon=True
            )
            for rank, file in enumerate(files)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(LIMIT)
        for process in processes:
            if process.exitcode is None:
                process.kill()
        told = [file.with_suffix(".txt") for file in files]
        codes = [process.exitcode for process in processes]
        assert codes == [0] * size, "\n".join(
            file.read_text() if file.exists() else f"rank {rank}: hangs, or was killed"
            for rank, file in enumerate(told)
        )
        return [torch.load(file, weights_only=False) for file in files]


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _train(
    args: list[str], env: dict[str, str], folder: Path, before: Callable[[], None] | None
) -> None:
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644), number)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(1)
    from train.__main__ import app

    if before is not None:
        before()
    app(args)


def _probe(probe: Callable[..., Any], args: tuple, env: dict[str, str], file: Path) -> None:
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(1)
    from train.distributed import ranks

    ranks.join()
    try:
        torch.save(probe(*args), file)
    except BaseException:
        file.with_suffix(".txt").write_text(traceback.format_exc())
        raise
    ranks.leave()
