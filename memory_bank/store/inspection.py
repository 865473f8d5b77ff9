"""Integrity check of a store: database, images, vectors, tags."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from emosym.errors import UserError
from emosym.pictures.loading import UnreadableImage
from memory_bank.confined import read_file
from memory_bank.store import schema, schema_check
from memory_bank.store.entry import Entry
from memory_bank.store.image_files import image_name, orphans
from memory_bank.store.images import read_image
from memory_bank.store.rows import ENTRY, record_of
from memory_bank.store.store import Store
from memory_bank.store.vectors import check_vectors

Show = Callable[[int, int], None]
"""Progress callback: takes the number done and the total."""


def problems(store: Store, show: Show) -> list[str]:
    """Return the problems found in a store; empty if there are none.

    Files without an entry are reported to a writer only: to a reader they could belong to a batch
    that is about to commit.
    """
    with store.reading() as db:
        found = [
            f"database: {line}" for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"
        ]
        found += [f"database: {line}" for line in schema_check.differences(db, schema.FORMAT)]
        found += _history(store, db)
        (count,) = db.execute("SELECT count(*) FROM entries").fetchone()
        rows = db.execute(f"SELECT embedding, removed, {', '.join(ENTRY)} FROM entries ORDER BY id")
        for done, (embedding, removed, *row) in enumerate(rows, start=1):
            about = f"entry {row[ENTRY.index('id')]}"
            found += [f"{about}: {problem}" for problem in _entry(store, embedding, removed, row)]
            show(done, count)
        if store.writable:
            known = {row[0] for row in db.execute("SELECT sha256 FROM entries")}
            found += [
                f"no entry has the file {store.path / name}" for name in orphans(store.path, known)
            ]
    return found


def _history(store: Store, db: sqlite3.Connection) -> Iterator[str]:
    oldest, newest = (
        db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0]
        for key in ("oldest", "version")
    )
    for name, version in db.execute("SELECT name, version FROM tags"):
        if not oldest <= version <= newest:
            yield f"tag {name}: no version {version}, there are {oldest} to {newest}"
    for number, added in db.execute("SELECT id, added FROM entries WHERE added > ?", (newest,)):
        yield f"entry {number}: added at version {added}, the newest is {newest}"
    missing = "SELECT id FROM {} EXCEPT SELECT id FROM {}"
    for pair in (("entries", "prompts_docsize"), ("prompts_docsize", "entries")):
        for (number,) in db.execute(missing.format(*pair)):
            yield f"entry {number}: its prompt is {'not ' * (pair[0] == 'entries')}indexed"


def _entry(
    store: Store, embedding: bytes, removed: int | None, row: Sequence[object]
) -> Iterator[str]:
    try:
        entry = record_of(Entry, ENTRY, row)
        _ = entry.affect  # raises when it is off its scale
    except (UserError, TypeError, ValueError) as error:
        yield str(error)
        return
    if removed is not None and removed <= entry.added:
        yield f"removed at version {removed}, added at {entry.added}"
    if len(embedding) != 4 * store.dim:
        yield f"embedding of {len(embedding)} bytes"
    try:
        if len(embedding) == 4 * store.dim:
            check_vectors(np.frombuffer(embedding, np.float32), store.dim)
    except UserError as error:
        yield str(error)
    yield from _image(store.path, entry)


def _image(bank: Path, entry: Entry) -> Iterator[str]:
    name = image_name(entry.sha256, entry.suffix)
    try:
        file = read_image(read_file(bank, name))
    except OSError as error:
        yield str(UnreadableImage(bank / name, error.strerror))
    except UnreadableImage as error:
        yield str(UnreadableImage(bank / name, error.reason))
    except UserError as error:
        yield str(error)
    else:
        if file.sha256 != entry.sha256:
            yield f"image does not match its hash {entry.sha256}"
