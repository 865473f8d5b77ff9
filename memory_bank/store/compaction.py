"""Compaction: delete old versions, removed entries and refusals for good, and free the space."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from memory_bank.store import history, schema
from memory_bank.store.database import State
from memory_bank.store.store import Store


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Numbers of records that a compaction deleted."""

    oldest: int
    """Oldest version that can still be reached."""
    entries: int
    refusals: int
    tags: list[str]


def forget(store: Store, oldest: int | None, *, refusals: bool) -> Forgotten:
    """Delete what no version from `oldest` on needs, in one transaction; versions keep numbers.

    Without `oldest`, every tagged version and the newest one stay reachable. Tags of forgotten
    versions are deleted. `refusals` also deletes all refusals. Files are left for `Store.sweep`.

    Raises `UserError`, with the bank unchanged, when there is no version `oldest`.
    """
    if oldest is None:
        oldest = min([*history.tags(store).values(), store.state.version])
    store.check_version(oldest)
    with store.writing() as db:
        # Overwrite deleted data at once, in case the VACUUM in `shrink` is not reached.
        db.execute("PRAGMA secure_delete = ON")
        db.execute("BEGIN IMMEDIATE")
        store.set_meta(oldest=oldest, last_id=store.last_id(oldest))
        entries = db.execute("DELETE FROM entries WHERE removed <= ?", (oldest,)).rowcount
        refused = db.execute("DELETE FROM refusals").rowcount if refusals else 0
        names = db.execute("SELECT name FROM tags WHERE version < ? ORDER BY name", (oldest,))
        dropped = [name for (name,) in names]
        db.execute("DELETE FROM tags WHERE version < ?", (oldest,))
        db.execute(schema.INDEX_PROMPTS)
        state = State(store.state.generation + 1, store.state.version)
        store.commit(state, "compact", removed=entries)
    return Forgotten(oldest, entries, refused, dropped)


def shrink(store: Store) -> None:
    """Rewrite the database without its free pages, and empty its journal.

    Raises `UserError` when the disk or a reader prevents it; the deletion itself stays.
    """
    outcome = "its old versions are deleted, but the file is not smaller yet; compact again"
    with store.writing(outcome) as db:
        db.execute("VACUUM")
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("a reader still uses an older state")
