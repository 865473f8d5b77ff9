"""Banks for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_bank import Decision, MemoryBank
from tests.memory_bank.make import DIM, MODEL, candidate


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[MemoryBank]:
    """An empty bank, open for writing."""
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        yield bank


@pytest.fixture
def three_versions(tmp_path: Path) -> Iterator[MemoryBank]:
    """Entries 1 to 3 in version 1, also 4 in version 2; 5 instead of 1 in version 3.

    The bank must be sound after the test.
    """
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([candidate(0), candidate(1, step=10), candidate(2, step=10)])
        decisions = [Decision(candidate=candidate(3, step=20), admitted=True, reason="good")]
        bank.record([*decisions, Decision(candidate=candidate(9), admitted=False, reason="dull")])
        decisions = [Decision(candidate=candidate(4, step=30), admitted=True, reason="better")]
        bank.record(decisions, evict=[1])
        yield bank
    with MemoryBank.open(tmp_path / "bank", "a") as again:
        assert again.verify() == []
