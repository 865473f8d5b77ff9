"""The event log, tags of versions and differences between them."""

from __future__ import annotations

import pytest

from emosym.errors import UserError
from memory_bank import MemoryBank
from tests.memory_bank.make import (
    ids,
)


@pytest.fixture
def bank(three_versions: MemoryBank) -> MemoryBank:
    return three_versions


def test_diffs_by_hand(bank: MemoryBank):
    bank.tag("start", 1)
    for old, new, came, left in (
        (1, 3, [4, 5], [1]),
        ("start", 2, [4], []),
        (3, "start", [1], [4, 5]),
        (0, 3, [2, 3, 4, 5], []),
        (2, 2, [], []),
    ):
        found = bank.diff(old, new)
        assert (ids(found.came), ids(found.left)) == (came, left)
    with MemoryBank.open(bank.path) as reader:
        reader.reload("start")
        assert ids(reader.diff("2", "3").came) == [5]


def test_the_log_keeps_what_was_rolled_back(bank: MemoryBank):
    bank.rollback(1)
    bank.remove([2])
    message = [(e.what, e.version, e.added, e.removed, e.refused) for e in bank.events()]
    assert message == [
        ("init", 0, 0, 0, 0),
        ("add", 1, 3, 0, 0),
        ("admit", 2, 1, 0, 1),
        ("admit", 3, 1, 1, 0),
        ("rollback", 1, 1, 2, 0),
        ("remove", 2, 0, 1, 0),
    ]
    times = [event.time for event in bank.events()]
    assert times == sorted(times)
    assert all(time.endswith("+00:00") for time in times)


def test_tags(bank: MemoryBank):
    assert bank.tag("now") == 3
    assert bank.tag("v1.0_a-b", 1) == 1
    assert bank.tag("again", "now") == 3
    assert bank.tags() == {"v1.0_a-b": 1, "again": 3, "now": 3}
    assert bank.version == 3
    for name in ("", "7", "-x", ".x", "a b", "a/b", "x" * 65, "é", "a\n", "'; DROP TABLE tags; --"):
        with pytest.raises(UserError, match=r"the name of a tag; got .*; expected up to 64"):
            bank.tag(name)
    with pytest.raises(UserError, match="the tag now is in use; got version 3; delete it first"):
        bank.tag("now", 1)
    with pytest.raises(UserError, match="no such version of the memory bank; got 9"):
        bank.tag("later", 9)
    with pytest.raises(UserError, match=r"unknown tag 'noww'.*did you mean 'now'\?"):
        bank.rollback("noww")
    assert bank.rollback("v1.0_a-b") == 1
    assert bank.tags() == {"v1.0_a-b": 1}
    bank.untag("v1.0_a-b")
    with pytest.raises(UserError, match="unknown tag 'now'; expected the number of a version"):
        bank.untag("now")
    with MemoryBank.open(bank.path) as reader, pytest.raises(UserError, match="open for reading"):
        reader.tag("x")


@pytest.mark.parametrize(("step", "version"), [(0, 0), (10, 0), (11, 1), (20, 1), (30, 2), (31, 3)])
def test_before_a_step(bank: MemoryBank, step: int, version: int):
    assert bank.version_before(step) == version
    bank.rollback(bank.version_before(step))
    assert all(entry.step is None or entry.step < step for entry in bank.entries())
