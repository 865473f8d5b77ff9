"""What `verify` reports, and files without an entry."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from memory_bank import MemoryBank
from tests.memory_bank.make import (
    DIM,
    MODEL,
    candidate,
    picture,
)


def test_verify_names_what_is_wrong(bank: MemoryBank):
    bank.add([candidate(number) for number in range(4)])
    paths = [bank.image_path(entry) for entry in bank.entries()]
    paths[0].unlink()
    paths[1].write_bytes(picture(9))
    bank._store._db.execute("UPDATE entries SET embedding = x'00' WHERE id = 3")
    lines = bank.verify()
    assert [line.split(":")[0] for line in lines] == ["entry 1", "entry 2", "entry 3"]
    assert "No such file" in lines[0]
    assert "does not match its hash" in lines[1]
    assert "embedding of 1 bytes" in lines[2]


def test_files_of_no_entry_are_swept_by_the_next_writer(bank: MemoryBank):
    bank.add([candidate(0)])
    bank.add([candidate(1)])
    kept, dropped = (bank.image_path(entry) for entry in bank.entries())
    unfinished = kept.with_name(f".{'a' * 64}.png.tmp")
    unfinished.write_bytes(b"half")
    own = kept.with_name("notes.txt")
    own.write_text("somebody's")
    bank.rollback(1)
    bank.close()
    MemoryBank.open(bank.path, "a").close()
    assert kept.exists()
    assert own.exists()
    assert not dropped.exists()
    assert not unfinished.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("INSERT INTO tags VALUES ('x', 9)", "tag x: no version 9, there are 0 to 3"),
        (
            "UPDATE entries SET added = 8 WHERE id = 3",
            "entry 3: added at version 8, the newest is 3",
        ),
        ("DELETE FROM prompts_docsize WHERE id = 2", "entry 2: its prompt is not indexed"),
        ("INSERT INTO prompts_docsize VALUES (77, x'00')", "entry 77: its prompt is indexed"),
        (
            "UPDATE entries SET removed = 1 WHERE id = 2",
            "entry 2: removed at version 1, added at 2",
        ),
    ],
)
def test_verify_tells_of_history(tmp_path: Path, change: str, message: str):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        for number in range(3):
            bank.add([candidate(number)])
        database = sqlite3.connect(bank.path / "bank.sqlite", isolation_level=None)
        database.execute(change)
        database.close()
        assert message in bank.verify()


def test_verify_tells_a_writer_of_files_of_no_entry(three_versions: MemoryBank):
    bank = three_versions
    stray = bank.path / "images" / "ab" / f"ab{'0' * 62}.png"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(picture(50))
    assert bank.verify() == [f"no entry has the file {stray}"]
    shown: list[tuple[int, int]] = []
    with MemoryBank.open(bank.path) as reader:
        assert reader.verify(lambda *show: shown.append(show)) == []
    assert shown == [(number, 5) for number in range(1, 6)]
    stray.unlink()
