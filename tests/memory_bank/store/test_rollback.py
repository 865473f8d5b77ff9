"""Rollbacks restore a version exactly."""

from __future__ import annotations

import pytest

from memory_bank import Decision, Entry, MemoryBank
from tests.memory_bank.make import (
    candidate,
    refused,
    vector,
)


def test_rollback_restores_exactly(bank: MemoryBank):
    def everything() -> tuple[list[Entry], list[str], dict, list]:
        hits = bank.search(vector(50), 100)[0]
        return bank.entries(), [one.reason for one in bank.refusals()], bank.stats(), hits

    seen = [everything()]
    bank.record([*(Decision(candidate=candidate(n), admitted=True, reason="") for n in range(5))])
    seen.append(everything())
    bank.record([refused(20), Decision(candidate=candidate(6), admitted=True, reason="")])
    seen.append(everything())
    bank.remove([2, 6])
    seen.append(everything())
    bank.add([candidate(1), candidate(8)])  # 1 was removed, so it is no duplicate

    for version in (4, 3, 2, 1, 0):
        if version < 4:
            assert bank.rollback(version) == version
            assert everything() == seen[version]
        assert bank.verify() == []


def test_what_a_rollback_brought_back_stays(bank: MemoryBank):
    bank.add([candidate(0), candidate(1)])
    bank.remove([1])
    bank.rollback(1)
    bank.add([candidate(2)])  # version 2 again: entry 1 was removed in the forgotten one
    assert [entry.id for entry in bank.entries()] == [1, 2, 3]
    assert bank.verify() == []


def test_a_new_history_after_a_rollback_is_not_mistaken_for_the_old(bank: MemoryBank):
    bank.add([candidate(0)])
    bank.add([candidate(1)])
    bank.close()
    with MemoryBank.open(bank.path, "a") as writer, MemoryBank.open(bank.path) as reader:
        writer.rollback(1)
        with pytest.raises(Exception, match=r"was changed by its writer; reload it"):
            reader.entries()
        writer.add([candidate(5)])  # version 2 and id 2 again, another image
        assert reader.reload() == 2
        assert reader.search(vector(5), 1)[0][0].cosine == pytest.approx(1.0, abs=1e-6)
        assert reader.entries() == writer.entries()
        assert reader.verify() == []


def test_the_same_history_gives_the_same_ids_after_a_rollback(bank: MemoryBank):
    bank.add([candidate(0)])
    bank.add([candidate(1), candidate(2)])
    before = bank.entries()
    bank.rollback(1)
    bank.add([candidate(1), candidate(2)])
    assert bank.entries() == before
