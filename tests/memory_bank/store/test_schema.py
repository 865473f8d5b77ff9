"""Upgrade of a bank of format 1."""

from __future__ import annotations

import resource
import signal
import sqlite3
from pathlib import Path

import pytest

from emosym.errors import UserError
from memory_bank import MemoryBank
from tests.memory_bank.make import (
    MODEL,
    candidate,
    ids,
)


@pytest.fixture
def bank(three_versions: MemoryBank) -> MemoryBank:
    return three_versions


OLD_PROVENANCE = """source TEXT NOT NULL, emotion TEXT, valence REAL, arousal REAL, predicted TEXT,
predicted_valence REAL, predicted_arousal REAL, confidence REAL, contrast REAL, prompt TEXT,
seed INTEGER, model_hash TEXT, step INTEGER, reason TEXT NOT NULL"""


@pytest.fixture
def old(bank: MemoryBank) -> Path:
    """The bank as format 1 had it."""
    for number in (2, 4):
        with bank._store.writing() as db:
            prompt = f"quiet lake {number}"
            db.execute("UPDATE entries SET prompt = ? WHERE id = ?", (prompt, number))
    bank.close()
    db = sqlite3.connect(bank.path / "bank.sqlite", isolation_level=None)
    for name in ("prompt_came", "prompt_left"):
        db.execute(f"DROP TRIGGER {name}")
    for name in ("prompts", "events", "tags"):
        db.execute(f"DROP TABLE {name}")
    db.execute("DROP INDEX entry_live")
    db.execute("CREATE INDEX entry_added ON entries (added)")
    for table in ("entries", "refusals"):
        for column in ("fingerprint", "scores"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    db.execute("DELETE FROM meta WHERE key IN ('oldest', 'last_id', 'index')")
    db.execute("UPDATE meta SET value = 1 WHERE key = 'format'")
    columns = [row[1] for row in db.execute("PRAGMA table_info(refusals)")]
    assert columns[1:-1] == [part.split()[0] for part in OLD_PROVENANCE.split(",")]
    db.close()
    return bank.path


def test_an_old_format_is_brought_up_to_date_by_a_writer(old: Path):
    message = "made by an older version; got format 1; expected format 2; upgrade it with"
    with pytest.raises(UserError, match=message):
        MemoryBank.open(old)
    with MemoryBank.open(old, "a", model_hash=MODEL) as bank:
        assert (bank.version, ids(bank.entries()), len(bank.refusals())) == (3, [2, 3, 4, 5], 1)
        assert [dict(entry.scores) for entry in bank.entries()] == [{}] * 4
        assert [(event.what, event.version) for event in bank.events()] == [("upgrade", 3)]
        assert [hit.entry.id for hit in bank.search_text("lake")] in ([2, 4], [4, 2])
        assert bank.verify() == []
        assert bank.rollback(1) == 1
        assert ids(bank.entries()) == [1, 2, 3]
        bank.add([candidate(7, scores={"a": 1.0}, fingerprint=5)])
        assert bank.entry(4).fingerprint == 5
    assert MemoryBank.open(old).version == 2


def test_an_upgrade_that_fails_changes_nothing(old: Path):
    data = (old / "bank.sqlite").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (33_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write to .*; the bank is unchanged"):
            MemoryBank.open(old, "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    with pytest.raises(UserError, match="got format 1"):
        MemoryBank.open(old)
    assert (old / "bank.sqlite").read_bytes() == data
