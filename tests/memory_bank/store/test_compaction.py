"""Compaction deletes old versions for good, and keeps what is tagged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emosym.errors import UserError
from memory_bank import Decision, MemoryBank
from tests.memory_bank.make import (
    DIM,
    MODEL,
    candidate,
    ids,
    image_names,
    picture,
    vector,
)


@pytest.fixture
def bank(three_versions: MemoryBank) -> MemoryBank:
    return three_versions


def test_compaction_keeps_what_tags_need(bank: MemoryBank):
    bank.remove([2])  # version 4
    bank.tag("second", 2)
    before = [entry.sha256 for entry in MemoryBank.open(bank.path).entries()]
    forgotten = bank.compact()
    assert (forgotten.oldest, forgotten.entries, forgotten.refusals) == (2, 0, 0)
    assert len(image_names(bank)) == 5
    bank.untag("second")
    bank.tag("third", 3)
    forgotten = bank.compact(4, refusals=True)
    assert (forgotten.oldest, forgotten.entries, forgotten.refusals) == (4, 2, 1)
    assert forgotten.tags == ["third"]
    assert (bank.tags(), bank.refusals()) == ({}, [])
    assert image_names(bank) == sorted(before)
    assert [entry.sha256 for entry in bank.entries()] == before
    message = "a version that the memory bank has forgotten; got 3; expected 4 to 4"
    for act in (bank.rollback, bank.compact, lambda v: bank.tag("x", v), lambda v: bank.diff(v, 4)):
        with pytest.raises(UserError, match=message):
            act(3)
    with pytest.raises(UserError, match=message):
        bank.rollback(bank.version_before(31) if bank.version_before(31) < 4 else 3)


def test_ids_of_the_forgotten_are_not_given_again(bank: MemoryBank):
    """Entry 6 is the last, leaves and is forgotten; a rollback gives 7 again, but never 6."""
    bank.add([candidate(6)])
    bank.remove([6])
    bank.compact()
    for _ in range(2):
        bank.add([candidate(7), candidate(8)])
        assert ids(bank.entries()) == [2, 3, 4, 5, 7, 8]
        bank.rollback(5)
    bank.close()
    with MemoryBank.open(bank.path, "a") as again:
        again.add([candidate(6)])
        assert ids(again.entries()) == [2, 3, 4, 5, 7]


def test_what_is_forgotten_leaves_no_trace_in_the_folder(tmp_path: Path):
    secret = "a prompt that nobody else would write"
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([candidate(number) for number in range(4)])
        bank.add([candidate(5, prompt=secret, model_hash="hushed")])
        bank.record([Decision(candidate=candidate(6, prompt=secret), admitted=False, reason="x")])
        gone = vector(5).tobytes()
        unit = (vector(5).astype(np.float64) / np.linalg.norm(vector(5).astype(np.float64))).astype(
            np.float32
        )
        bank.remove([5])

        def traces() -> int:
            data = [path.read_bytes() for path in bank.path.rglob("*") if path.is_file()]
            wanted = (secret.encode(), b"hushed", gone, unit.tobytes(), picture(5), b"nobodi")
            return sum(text in one for one in data for text in wanted)

        assert traces() > 0
        bank.compact(refusals=True)
        assert traces() == 0
        assert bank.verify() == []


def test_a_reader_at_a_forgotten_version_is_told(bank: MemoryBank):
    with MemoryBank.open(bank.path) as reader:
        reader.reload(1)
        bank.compact()
        with pytest.raises(UserError, match="was changed by its writer; reload it"):
            reader.entries()
        with pytest.raises(UserError, match="has forgotten; got 1; expected 3 to 3"):
            reader.reload(1)
        assert reader.reload() == 3
        assert (ids(reader.entries()), reader.verify()) == ([2, 3, 4, 5], [])
