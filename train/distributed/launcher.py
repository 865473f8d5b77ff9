"""Start the ranks of a run on this machine: `python -m train.distributed.launcher RANKS run ...`.

DeepSpeed's launcher ends all ranks as soon as one has ended, so that a rank may not get to say why,
or to finish its checkpoint; and it reports again what the ranks have reported.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PATIENCE = 30.0
"""Seconds that the other ranks have to end by themselves after one has failed."""
_INTERVAL = 0.05


def launch(size: int, arguments: Sequence[str]) -> int:
    """Run `python -m train` with `arguments` on each rank, and wait for all of them.

    Signals are passed on to the ranks. Ranks that wait for one that has failed are killed.

    Returns:
        0, or the exit code of the rank that failed first; 128 + the signal that killed it.
    """
    port = free_port()
    ranks: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _: object) -> None:
        for rank in ranks:
            rank.send_signal(number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, forward)
    command = [sys.executable, "-u", "-m", "train", *arguments]
    for number in range(size):
        own = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": size, "MASTER_PORT": port}
        environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
        environment["MASTER_ADDR"] = "127.0.0.1"
        # In a group of its own: the terminal sends Ctrl-C to the launcher alone.
        ranks.append(subprocess.Popen(command, env=environment, process_group=0))
    return _wait(ranks)


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all ranks; return the exit code of the first that failed."""
    code, end = 0, float("inf")
    running = dict(enumerate(ranks))
    while running:
        time.sleep(_INTERVAL)
        for number, rank in list(running.items()):
            found = rank.poll()
            if found is None:
                continue
            del running[number]
            if found and not code:
                code, end = found if found > 0 else 128 - found, time.monotonic() + PATIENCE
                if found < 0:
                    name = signal.Signals(-found).name
                    print(f"error: rank {number} was killed by {name}", file=sys.stderr)
        if time.monotonic() > end:
            for rank in running.values():
                rank.kill()
    return code


def free_port() -> int:
    """Return a port of this machine that no one listens to."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def resume_command(run: Path, checkpoint: str | None = None) -> str:
    """Return the command that resumes a run on as many ranks, from a checkpoint or the last one."""
    ranks = os.environ.get("WORLD_SIZE", "1")
    processes = f" NPROC={ranks}" if ranks != "1" else ""
    named = f" CHECKPOINT={checkpoint}" if checkpoint else ""
    return f"`make resume RUN={run}{processes}{named}`"


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), sys.argv[2:]))
