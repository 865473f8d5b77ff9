"""What is on the disk, and when: every file and folder of a batch before the database names it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from emosym.errors import UserError
from memory_bank import MemoryBank
from memory_bank.store import durable
from tests.memory_bank.make import DIM, MODEL, candidate


@pytest.fixture
def bank(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        yield bank


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that `os.fsync` was asked for; they are synced all the same."""
    paths: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


@pytest.mark.parametrize("count", [3, 40])
def test_without_syncfs_each_file_and_folder_is_synced(
    bank: MemoryBank, synced: list[str], monkeypatch: pytest.MonkeyPatch, count: int
):
    monkeypatch.setattr(durable, "_syncfs", lambda: None)
    bank.add([candidate(number) for number in range(count)])
    files = [bank.image_path(entry) for entry in bank.entries()]
    folders = {file.parent for file in files} | {bank.path / "images", bank.path}
    assert sorted(synced) == sorted(map(str, [*files, *folders]))


def test_a_large_batch_waits_for_one_flush(
    bank: MemoryBank, synced: list[str], monkeypatch: pytest.MonkeyPatch
):
    flushed: list[tuple[int, int]] = []
    real = durable._syncfs()
    assert real is not None

    def flush(descriptor: int) -> None:
        files = [path for path in (bank.path / "images").rglob("*") if path.is_file()]
        flushed.append((len(files), sum(path.stat().st_size > 0 for path in files)))
        assert bank._store.state.version == len(flushed) - 1  # not committed yet
        real(descriptor)

    monkeypatch.setattr(durable, "_syncfs", lambda: flush)
    bank.add([candidate(number) for number in range(20)])
    bank.add([candidate(number) for number in range(20, 40)])
    assert (flushed, synced) == ([(20, 20), (40, 40)], [])
    bank.add([candidate(40)])  # a small one does not wait for the others' files
    assert len(flushed) == 2
    assert len(synced) == 4  # the file, its folder, the folder of all, the bank's


def test_a_disk_that_does_not_take_the_batch(bank: MemoryBank, monkeypatch: pytest.MonkeyPatch):
    bank.add([candidate(0)])

    def flush(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable, "_syncfs", lambda: flush)
    with pytest.raises(UserError, match=r"cannot write to .*Input/output error.*is unchanged"):
        bank.add([candidate(number) for number in range(1, 20)])
    files = [path for path in (bank.path / "images").rglob("*") if path.is_file()]
    assert (len(files), bank.version, bank.verify()) == (1, 1, [])


def test_which_kernels_report_errors():
    releases = ("4.19.0-27-amd64", "5.7.19", "5.8.0", "5.15.167.4-microsoft", "6.8+", "10.0")
    assert [durable._reports_errors(release) for release in releases] == [False] * 2 + [True] * 4
