"""The index file is a cache: a damaged, old or foreign one is rebuilt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from memory_bank import MemoryBank
from tests.memory_bank.make import (
    DIM,
    MODEL,
    candidate,
    vector,
)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "older", "other dim"])
def test_the_index_is_rebuilt(bank: MemoryBank, damage: str, tmp_path: Path):
    path = bank.path / "index.faiss"
    bank.add([candidate(number) for number in range(6)])
    bank.close()
    old = path.read_bytes()
    with MemoryBank.open(bank.path, "a") as writer:
        writer.add([candidate(7)])
        writer.remove([3])
    data = path.read_bytes()
    assert data != old
    if damage == "missing":
        path.unlink()
    elif damage == "other dim":
        with MemoryBank.create(tmp_path / "other", DIM + 1, MODEL) as other:
            other.add([candidate(1, embedding=vector(1, DIM + 1))])
        path.write_bytes((tmp_path / "other" / "index.faiss").read_bytes())
    else:
        half = len(data) // 2
        flipped = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        path.write_bytes({"empty": b"", "cut": data[:-9], "flipped": flipped, "older": old}[damage])
    with MemoryBank.open(bank.path) as reader:
        assert reader.verify() == []
        assert [hit.entry.id for hit in reader.search(vector(7), 1)[0]] == [7]
        assert len(reader) == 6
    with MemoryBank.open(bank.path, "a") as writer:
        assert writer.verify() == []
    assert path.read_bytes() == data


@pytest.mark.parametrize("count", [2, 4, 6])
def test_the_index_of_another_bank_is_not_believed(bank: MemoryBank, count: int, tmp_path: Path):
    """It has the same dimension, generation and version, and a sound checksum."""
    bank.add([candidate(number) for number in range(4)])
    bank.close()
    with MemoryBank.create(tmp_path / "other", DIM, MODEL) as other:
        other.add([candidate(number) for number in range(100, 100 + count)])
    path = bank.path / "index.faiss"
    path.write_bytes((tmp_path / "other" / "index.faiss").read_bytes())
    for mode in ("r", "a", "r"):
        with MemoryBank.open(bank.path, mode) as again:
            for number in range(4):
                (hit,) = again.search(vector(number), 1)[0]
                assert hit.entry.id == number + 1
                assert hit.cosine == pytest.approx(1, abs=1e-6)
            assert again.verify() == []


def test_the_index_of_a_copy_that_went_another_way_is_not_believed(bank: MemoryBank, tmp_path):
    """Both remove one entry as version 2; one of them sees the other's index."""
    bank.add([candidate(number) for number in range(4)])
    bank.close()
    shutil.copytree(bank.path, tmp_path / "copy")
    for path, gone in ((bank.path, [2]), (tmp_path / "copy", [3, 4])):
        with MemoryBank.open(path, "a") as writer:
            writer.remove(gone)
    shutil.copy(tmp_path / "copy" / "index.faiss", bank.path / "index.faiss")
    with MemoryBank.open(bank.path) as again:
        assert again.search(vector(3), 4)[0][0].entry.id == 4
        assert again.verify() == []


def test_verify_compares_the_index_with_the_store(bank: MemoryBank):
    bank.add([candidate(0), candidate(1)])
    blob = vector(5).tobytes()
    bank._store._db.execute("UPDATE entries SET embedding = ? WHERE id = 2", (blob,))
    assert bank.verify() == ["index: vector of entry 2 differs"]
