"""Disks that are nearly full, writes that fail, and readers beside a writer that rolls back."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from emosym.errors import UserError
from memory_bank import MemoryBank
from memory_bank.exchange import export_bank
from tests.memory_bank.make import DIM, MODEL, candidate
from tests.memory_bank.test_processes import running

ROLLING = """
import sys
from memory_bank import MemoryBank
from tests.memory_bank.make import candidate
bank = MemoryBank.open(sys.argv[1], "a")
print("ready", flush=True)
while True:
    bank.add([candidate(bank.version + 1000)])
    bank.rollback(int(sys.argv[2]))
"""


def test_opening_beside_a_writer_that_rolls_back(tmp_path: Path):
    """Each reader sees one version whole; none fails."""
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([candidate(number) for number in range(20)])
        bank.tag("kept")
    with running(ROLLING, tmp_path / "bank", 1):
        for _ in range(300):
            with MemoryBank.open(tmp_path / "bank") as reader:
                with reader.moment():
                    assert len(reader.entries()) == len(reader) in (20, 21)
                    assert reader.search_text("boat") == []
                reader.reload()
        with MemoryBank.open(tmp_path / "bank") as reader:
            for _ in range(300):
                reader.reload()
                with reader.moment("kept"):
                    assert len(reader.entries()) == len(reader) == 20


def free_files(folder: Path) -> list[str]:
    """Return the temporary files in a folder."""
    return [path.name for path in folder.rglob("*") if path.name.endswith(".tmp")]


def quiet(done: int, total: int) -> None:
    """Show nothing."""


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
@pytest.mark.parametrize("size", [0, 1, 100, 4096, 5000])
def test_an_index_that_does_not_fit_is_not_saved(tmp_path: Path, kind: str, size: int, caplog):
    bank = MemoryBank.create(tmp_path / "bank", DIM, MODEL, index=kind)
    bank.add([candidate(number) for number in range(90)])
    with largest_file(size):
        bank.close()
    assert "could not save" in caplog.text
    assert free_files(tmp_path) == []
    with MemoryBank.open(tmp_path / "bank") as reader:
        assert (len(reader), reader.verify()) == (90, [])


def test_a_lock_whose_note_cannot_be_written_is_released(tmp_path: Path):
    MemoryBank.create(tmp_path / "bank", DIM, MODEL).close()
    descriptors = len(os.listdir("/proc/self/fd"))
    with (
        largest_file(0),
        pytest.raises(UserError, match=r"cannot write to .*; free some space, or"),
    ):
        MemoryBank.open(tmp_path / "bank", "a")
    assert len(os.listdir("/proc/self/fd")) == descriptors
    with MemoryBank.open(tmp_path / "bank", "a") as bank:
        assert bank.add([candidate(1)]).version == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up(small_disk: Path):
    """Whatever is free, each act is done whole, or is one line and changes nothing."""
    path = small_disk / "bank"
    with MemoryBank.create(path, DIM, MODEL) as bank:
        bank.add([candidate(number) for number in range(20)])
    for free in (0, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256):
        filler = small_disk / "filler"
        used = os.statvfs(small_disk)
        filler.write_bytes(bytes(max(0, used.f_bavail * used.f_frsize - free * 1024)))
        acts = {
            "add": lambda bank: bank.add([candidate(number) for number in range(100, 160)]),
            "compact": MemoryBank.compact,
            "export": lambda bank: export_bank(bank, small_disk / "out.tar", quiet),
            "create": lambda bank: MemoryBank.create(small_disk / "new", DIM, MODEL).close(),
        }
        for name, act in acts.items():
            with suppress(UserError), MemoryBank.open(path, "a") as bank:
                before = (bank.version, [entry.id for entry in bank.entries()])
                with suppress(UserError):
                    act(bank)
                    continue
                assert (bank.version, [e.id for e in bank.entries()]) == before, name
            assert free_files(small_disk) == [], (name, free)
        filler.unlink()
        with MemoryBank.open(path, "a") as bank:
            assert bank.verify() == []
            bank.rollback(1)
            bank.compact()
        for left in ("out.tar", "new"):
            subprocess.run(["rm", "-rf", str(small_disk / left)], check=True)


def test_what_an_error_of_writing_advises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from memory_bank.store import store

    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        for number, advice in (
            (errno.ENOSPC, "free some space"),
            (errno.EDQUOT, "free some space"),
            (errno.EACCES, "make the folder writable"),
            (errno.EROFS, "make the folder writable"),
            (errno.EBADF, "check the disk"),
        ):

            def fail(*of: object, number: int = number) -> None:
                raise OSError(number, os.strerror(number))

            monkeypatch.setattr(store, "write_images", fail)
            with pytest.raises(
                UserError, match=f"cannot write to .*; {advice}.*; the bank is unch"
            ):
                bank.add([candidate(1)])
        monkeypatch.undo()
        with pytest.raises(UserError, match="too big; shorten the text; the bank is unchanged"):
            bank.add([candidate(1, prompt="x" * 2**26)])
        assert bank.add([candidate(1)]).version == 1
