"""The launcher of one machine: signals, exit codes, and nothing said twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train import probes
from tests.train.probes import compress
from tests.train.processes import ROOT, environment
from train.distributed import launcher

STAND_IN = r"""
import os, signal, sys, time
rank, kind = int(os.environ["RANK"]), sys.argv[1]
assert os.environ["WORLD_SIZE"] == "2" and os.environ["LOCAL_RANK"] == str(rank)
if kind == "refused":  # the second rank ends before the first has said why
    time.sleep(1.5 * (1 - rank))
    if rank == 0:
        print("error: no such preset", file=sys.stderr)
    sys.exit(2)
if kind == "killed" and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "signals":
    got = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: got.append(number))
    os.write(1, b"ready\n")
    while not got:
        time.sleep(0.01)
    time.sleep(0.5)  # it saves
    os.write(1, f"saved {got}\n".encode())
    sys.exit(128 + got[0])
if kind == "killed":
    time.sleep(1000)  # it waits for the other rank
"""
"""Stands in for `train`, whose import takes seconds."""


@pytest.fixture
def launch(tmp_path):
    """Return a function that starts two ranks of the stand-in through the launcher."""
    (tmp_path / "train.py").write_text(STAND_IN)
    source = Path(launcher.__file__).read_text()
    (tmp_path / "launcher.py").write_text(source.replace("PATIENCE = 30.0", "PATIENCE = 4.0"))

    def start(kind: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "launcher.py", "2", kind],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )

    return start


def test_a_rank_that_ends_first_does_not_silence_the_others(launch):
    out, err = (refused := launch("refused")).communicate(timeout=60)
    assert (refused.returncode, out, err) == (2, "", "error: no such preset\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_rank_once_and_has_time(launch, number):
    done = launch("signals")
    assert [done.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    done.send_signal(number)
    out, err = done.communicate(timeout=60)
    assert out == f"saved [{int(number)}]\n" * 2
    assert err == ""
    assert done.returncode == 128 + number


def test_ranks_do_not_wait_for_one_that_was_killed(launch):
    started = time.monotonic()
    _, err = (killed := launch("killed")).communicate(timeout=60)
    assert killed.returncode == 137
    assert err == "error: rank 1 was killed by SIGKILL\n"
    assert time.monotonic() - started < 50  # the other one sleeps for 1000 s


def test_an_error_of_a_real_run_is_one_line(tmp_path, model, world):
    preset = tmp_path / "preset.yaml"
    preset.write_text(json.dumps(probes.settings(model, world, **compress(1))))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "train.distributed.launcher", "2"),
            *("run", preset, "compress.batch_size=3", "--run", tmp_path / "run"),
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=environment(),
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: batch sizes are global and must divide")
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
