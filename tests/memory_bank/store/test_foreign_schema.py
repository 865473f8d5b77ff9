"""A database from elsewhere: what is in its schema never acts, and no value leads out or fails."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from emosym.errors import UserError
from memory_bank import MemoryBank
from memory_bank.store import schema, schema_check
from tests.memory_bank.make import DIM, MODEL, candidate, vector


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([candidate(0), candidate(1)])
    return tmp_path / "bank"


def edit(bank: Path, *changes: str) -> None:
    db = sqlite3.connect(bank / "bank.sqlite", isolation_level=None)
    db.execute("PRAGMA ignore_check_constraints = ON")
    for change in changes:
        db.execute(change)
    db.close()


def rewritten(table: str, old: str, new: str) -> tuple[str, ...]:
    """Change the statement of a table behind SQLite's back."""
    return (
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_master SET sql = replace(sql, '{old}', '{new}') WHERE name = '{table}'",
    )


EVIL = "BEGIN DELETE FROM entries; END"
FOREIGN = {
    "a trigger": ((f"CREATE TRIGGER evil AFTER INSERT ON entries {EVIL}",), "trigger 'evil'"),
    "a trigger on tags": ((f"CREATE TRIGGER evil BEFORE INSERT ON tags {EVIL}",), "trigger 'evil'"),
    "a trigger in place of ours": (
        ("DROP TRIGGER prompt_came", f"CREATE TRIGGER prompt_came AFTER INSERT ON entries {EVIL}"),
        "a changed trigger 'prompt_came'",
    ),
    "a lost trigger": (("DROP TRIGGER prompt_left",), "no trigger 'prompt_left'"),
    "a view": (("CREATE VIEW evil AS SELECT * FROM entries",), "an unknown view 'evil'"),
    "a view in place of a table": (
        ("DROP TABLE tags", "CREATE VIEW tags AS SELECT 'x' AS name, 1 AS version"),
        "an unknown view 'tags', no table 'tags'",
    ),
    "a table": (("CREATE TABLE evil (x)",), "an unknown table 'evil'"),
    "a column": (("ALTER TABLE entries ADD COLUMN evil",), "a changed table 'entries'"),
    "a generated column": (
        ("ALTER TABLE entries ADD COLUMN evil AS (upper(prompt))",),
        "a changed table 'entries'",
    ),
    "a changed check": (
        rewritten("entries", "length(sha256) = 64", "length(sha256) > 0 "),
        "a changed table 'entries'",
    ),
    "an index on an expression": (
        ("CREATE INDEX evil ON entries (upper(prompt))",),
        "an unknown index 'evil'",
    ),
    "a partial index": (
        ("DROP INDEX live_image", "CREATE UNIQUE INDEX live_image ON entries (sha256)"),
        "a changed index 'live_image'",
    ),
    "a virtual table": (("CREATE VIRTUAL TABLE evil USING fts5(x)",), "table 'evil'"),
    "another tokenizer": (
        rewritten("prompts", "porter unicode61", "trigram"),
        "a changed table 'prompts'",
    ),
    "statistics": (("ANALYZE",), "an unknown table 'sqlite_stat"),
    "a user_version": (("PRAGMA user_version = 7",), "a changed user_version"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_schema_is_refused(bank: Path, name: str):
    changes, message = FOREIGN[name]
    edit(bank, *changes)
    before = (bank / "bank.sqlite").read_bytes()
    for mode in ("r", "a"):
        with pytest.raises(UserError, match=f"changed by another program; got .*{message}"):
            MemoryBank.open(bank, mode)
    assert (bank / "bank.sqlite").read_bytes() == before


def test_verify_finds_a_schema_that_was_changed_while_it_is_open(bank: Path):
    with MemoryBank.open(bank) as reader:
        edit(bank, FOREIGN["a trigger"][0][0])
        assert reader.verify() == ["database: an unknown trigger 'evil'"]


def test_a_view_in_the_place_of_meta_is_not_asked(bank: Path):
    """It would never end."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    edit(
        bank,
        "DROP TABLE meta",
        f"CREATE VIEW meta AS {endless} SELECT i AS key, i AS value FROM n",
    )
    for mode in ("r", "a"):
        with pytest.raises(UserError, match="is damaged; got its table meta is not that of"):
            MemoryBank.open(bank, mode)


def test_every_way_to_make_a_bank_is_known(tmp_path: Path):
    """New, and each variant of format 1 with and without an upgrade."""
    for place, statements in enumerate((None, *schema.FORMAT_1)):
        db = sqlite3.connect(tmp_path / f"{place}.sqlite", isolation_level=None)
        if statements is None:
            schema.create(db, DIM, MODEL, "auto")
        else:
            for statement in statements:
                db.execute(statement)
            assert schema_check.differences(db, 1) == []
            schema.upgrade(db, 0)
        db.execute("VACUUM")
        schema_check.check_meta(db)
        assert schema_check.differences(db, schema.FORMAT) == []
        db.close()


def test_an_upgrade_of_a_foreign_schema_does_not_begin(tmp_path: Path):
    folder = tmp_path / "bank"
    (folder / "images").mkdir(parents=True)
    db = sqlite3.connect(folder / "bank.sqlite", isolation_level=None)
    for statement in schema.FORMAT_1[0]:
        db.execute(statement)
    meta = {"format": 1, "dim": DIM, "model_hash": MODEL, "generation": 0, "version": 0}
    db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    db.execute(f"CREATE TRIGGER evil AFTER UPDATE ON meta {EVIL}")
    db.close()
    with pytest.raises(UserError, match=r"unknown trigger 'evil'; expected .* of format 1"):
        MemoryBank.open(folder, "a")
    edit(folder, "DROP TRIGGER evil")
    with MemoryBank.open(folder, "a") as bank:
        assert bank.add([candidate(1)]).version == 1
        assert bank.verify() == []


DEEP = "[" * 100_000
VALUES = {
    "a hash that is a path": "UPDATE entries SET sha256 = '../../outside' WHERE id = 1",
    "a hash that is absolute": "UPDATE entries SET sha256 = '/etc/passwd' WHERE id = 1",
    "a hash of bytes": "UPDATE entries SET sha256 = x'ff' WHERE id = 1",
    "a hash with a new line": f"UPDATE entries SET sha256 = '{'a' * 64}' || char(10) WHERE id = 1",
    "a suffix that is a path": "UPDATE entries SET suffix = 'png/../../../outside' WHERE id = 1",
    "another source": "UPDATE entries SET source = 'stolen' WHERE id = 1",
    "an id below zero": "UPDATE entries SET id = -1 WHERE id = 1",
    "an id at the end": "UPDATE entries SET id = 9223372036854775807 WHERE id = 1",
    "an infinite number": "UPDATE entries SET confidence = 9e999 WHERE id = 1",
    "a prompt of bytes": "UPDATE entries SET prompt = x'ff00' WHERE id = 1",
    "a prompt that is not UTF-8": "UPDATE entries SET prompt = CAST(x'c328' AS TEXT) WHERE id = 1",
    "a reason of bytes": "UPDATE entries SET reason = x'ff' WHERE id = 1",
    "deep scores": f"UPDATE entries SET scores = '{DEEP}' WHERE id = 1",
    "scores with a long number": f"UPDATE entries SET scores = '{{\"a\": {'9' * 5000}}}'",
    "an embedding that is short": "UPDATE entries SET embedding = x'00' WHERE id = 1",
    "an embedding of zeros": f"UPDATE entries SET embedding = zeroblob({4 * DIM}) WHERE id = 1",
    "an embedding of NaN": f"UPDATE entries SET embedding = x'{'ffffffff' * DIM}' WHERE id = 1",
    "a version at the end": "UPDATE meta SET value = 9223372036854775807 WHERE key = 'version'",
    "a huge dimension": "UPDATE meta SET value = 1099511627776 WHERE key = 'dim'",
    "no dimension": "UPDATE meta SET value = 0 WHERE key = 'dim'",
    "a last id at the end": "UPDATE meta SET value = 9223372036854775806 WHERE key = 'last_id'",
    "an event of bytes": "UPDATE events SET what = x'ff'",
    "a number of an event": "UPDATE events SET added = 'x'",
    "a tag of bytes": "INSERT INTO tags VALUES (x'ff', 1)",
    "a tag with an escape": "INSERT INTO tags VALUES (char(27) || '[2J', 1)",
    "a setting of the index": "UPDATE meta SET value = char(27) || 'x' WHERE key = 'index'",
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("index", [True, False], ids=["index", "no index"])
def test_a_value_that_cannot_be_is_one_line(bank: Path, tmp_path: Path, name: str, index: bool):
    (tmp_path / "outside.png").write_bytes(b"mine")
    found: list[str] = []
    edit(bank, VALUES[name])
    if not index:
        (bank / "index.faiss").unlink()
    uses = {
        "r": (
            MemoryBank.entries,
            MemoryBank.events,
            MemoryBank.tags,
            MemoryBank.stats,
            lambda one: [one.image_path(entry) for entry in one.entries()],
            lambda one: one.search(vector(0)),
            lambda one: one.search_text("a boat"),
            lambda one: json.dumps([str(entry) for entry in one.entries()]).encode(),
            lambda one: found.extend(one.verify()),
        ),
        "a": (lambda one: one.add([candidate(7)]), lambda one: one.rollback(0)),
    }
    for mode, acts in uses.items():
        for act in acts:
            try:
                with MemoryBank.open(bank, mode) as opened:
                    act(opened)
            except UserError as error:
                found.append(str(error))
    assert all(line.isprintable() for line in found)
    assert found or name in ("another source", "a last id at the end")
    assert (tmp_path / "outside.png").read_bytes() == b"mine"
