"""Several processes: kill -9, the writer's lock, ranks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emosym.errors import UserError
from memory_bank import MemoryBank
from tests.memory_bank.make import DIM, MODEL, candidate

ROOT = Path(__file__).resolve().parents[2]
BATCH = 3

WRITER = """
import sys
from pathlib import Path
from memory_bank import MemoryBank
from tests.memory_bank.make import candidate
bank = MemoryBank.open(Path(sys.argv[1]), "a")
print("ready", flush=True)
number = bank.version * 1000
while True:
    batch = [candidate(number + place, step=bank.version + 1) for place in range(3)]
    bank.add(batch)
    newest = bank.entries()[-3:]
    print(bank.version, *(f"{entry.id}:{entry.sha256}" for entry in newest), flush=True)
    number += 3
"""

HOLDER = """
import os, sys, time
from pathlib import Path
from memory_bank import MemoryBank
bank = MemoryBank.open(Path(sys.argv[1]), "a")
if os.fork() == 0:
    print("ready", flush=True)
    sys.stdin.read()  # as a data loader's worker that outlives its parent
    os._exit(0)
time.sleep(60)
"""

RANK = """
import sys
from datetime import timedelta
import torch.distributed as dist
from emosym.errors import UserError
from memory_bank import MemoryBank
from memory_bank.distributed import gather, write_on_rank_zero
from tests.memory_bank.make import candidate, vector
path, store, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2,
                        timeout=timedelta(seconds=60))
bank = MemoryBank.open(path, "a" if rank == 0 else "r")
for step in range(3):
    everyone = gather([candidate(10 * step + 2 * rank + place) for place in range(2)])
    count = write_on_rank_zero(bank, lambda bank: len(bank.add(everyone).admitted))
    print(count, bank.version, [hit.entry.id for hit in bank.search(vector(10 * step + 3), 1)[0]])
print(write_on_rank_zero(bank, lambda bank: bank.rollback(1)), len(bank))
try:
    write_on_rank_zero(bank, lambda bank: bank.rollback(9))
except UserError as error:
    print(error)
print(bank.verify())
bank.close()
dist.destroy_process_group()
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that printed "ready"; killed at the end."""
    process = start(script, *arguments)
    try:
        line = process.stdout.readline()
        assert line == "ready\n", process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    MemoryBank.create(tmp_path / "bank", DIM, MODEL).close()
    return tmp_path / "bank"


def test_kill_9_loses_nothing_acknowledged(path: Path):
    moments = random.Random(0)
    acknowledged: dict[int, str] = {}
    version = 0
    for turn in range(10):
        with running(WRITER, path) as writer:
            # The kills meet a writer that works, however slow the machine is.
            lines = [writer.stdout.readline() for _ in range(turn % 3)]
            time.sleep(moments.uniform(0, 0.06))
            writer.send_signal(signal.SIGKILL)
            lines += writer.stdout.read().splitlines(keepends=True)
            assert writer.wait() == -signal.SIGKILL, writer.stderr.read()
        for line in lines:
            if line.endswith("\n"):  # a line cut short was never acknowledged
                number, *entries = line.split()
                version = int(number)
                acknowledged |= {int(pair.split(":")[0]): pair.split(":")[1] for pair in entries}
        with MemoryBank.open(path) as reader:
            assert reader.verify() == []
        with MemoryBank.open(path, "a") as bank:
            assert bank.verify() == []
            found = {entry.id: entry.sha256 for entry in bank.entries()}
            assert acknowledged.items() <= found.items()
            assert bank.version >= version
            assert len(found) == BATCH * bank.version  # whole batches only
            on_disk = [file for file in (path / "images").rglob("*") if file.is_file()]
            assert len(on_disk) == len(found)  # what the crash left is swept
    assert version >= 9


def test_a_writer_killed_at_random_moments(tmp_path: Path):
    """Adding, evicting, rolling back, compacting, rebuilding, importing: see `crashes.py`."""
    kills = int(os.environ.get("BANK_KILLS", "40"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.memory_bank.crashes", str(tmp_path), str(kills)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] == kills
    assert len(report["during"].keys() - {"nothing"}) >= 4


def test_a_second_writer_is_told_and_readers_are_not_stopped(path: Path):
    with running(WRITER, path) as writer:
        writer.stdout.readline()
        message = f"has another writer; got process {writer.pid} on .* since 20.*wait until it ends"
        with pytest.raises(UserError, match=message):
            MemoryBank.open(path, "a")
        with MemoryBank.open(path) as reader:
            for _ in range(5):
                writer.stdout.readline()
                assert reader.reload() >= 1
                assert len(reader.entries()) == len(reader) == BATCH * reader.version
            seen = reader.version
            assert seen >= 5
            assert reader.verify() == []


def test_a_dead_writer_does_not_block_even_if_its_children_live(path: Path):
    with running(HOLDER, path) as holder:
        with pytest.raises(UserError, match=f"got process {holder.pid} "):
            MemoryBank.open(path, "a")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with MemoryBank.open(path, "a") as bank:
            assert bank.add([candidate(1)]).version == 1


def test_a_second_writer_waits_for_the_first(path: Path):
    with running(WRITER, path) as writer:
        with pytest.raises(UserError, match=f"has another writer; got process {writer.pid} "):
            MemoryBank.open(path, "a", wait=0.1)
        threading.Timer(0.3, writer.kill).start()
        with MemoryBank.open(path, "a", wait=300) as bank:
            assert bank.verify() == []


def test_one_process_cannot_write_twice(path: Path):
    with MemoryBank.open(path, "a"), pytest.raises(UserError, match=f"got process {os.getpid()} "):
        MemoryBank.open(path, "a")
    MemoryBank.open(path, "a").close()


def test_two_ranks_see_one_bank(path: Path, tmp_path: Path):
    ranks = [start(RANK, path, tmp_path / "rendezvous", rank) for rank in (0, 1)]
    outputs = [process.communicate(timeout=120) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs[0][1] + outputs[1][1]
    expected = [
        "4 1 [4]",
        "4 2 [8]",
        "4 3 [12]",
        "1 4",
        "no such version of the memory bank; got 9; expected 0 to 1",
        "[]",
    ]
    assert outputs[0][0].splitlines() == expected
    assert outputs[1][0].splitlines() == expected


def test_without_a_process_group_it_just_writes(path: Path):
    from memory_bank.distributed import gather, write_on_rank_zero

    with MemoryBank.open(path, "a") as bank:
        items = gather([candidate(1)])
        assert write_on_rank_zero(bank, lambda bank: bank.add(items).version) == 1
