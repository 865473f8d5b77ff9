"""The tables of a bank, and the upgrade from an older format."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

FORMAT = 2
"""Format of the tables below; a bank with a higher format is not opened.

1: entries, refusals. 2: fingerprints and scores; events, tags and the words of prompts.
"""

AUTO = "auto"
"""Index setting that chooses the kind by size."""

META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID"
_JUDGED = """
    source TEXT NOT NULL CHECK (source IN ('real', 'synthetic')),
    emotion TEXT, valence REAL, arousal REAL,
    predicted TEXT, predicted_valence REAL, predicted_arousal REAL, confidence REAL, contrast REAL,
    """
_MADE = """prompt TEXT, seed INTEGER, model_hash TEXT, step INTEGER,
    reason TEXT NOT NULL"""
_PROVENANCE = f"{_JUDGED}fingerprint INTEGER, scores TEXT NOT NULL,\n    {_MADE}"


def _records(provenance: str, live: str) -> tuple[str, ...]:
    """Return the statements that make the records, with the index `live` of live entries."""
    return (
        META,
        f"""CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64 AND sha256 NOT GLOB '*[^0-9a-f]*'),
    suffix TEXT NOT NULL CHECK (suffix IN ('png', 'jpg')),
    {provenance},
    added INTEGER NOT NULL,
    removed INTEGER,
    embedding BLOB NOT NULL
    )""",
        "CREATE UNIQUE INDEX live_image ON entries (sha256) WHERE removed IS NULL",
        live,
        "CREATE INDEX entry_removed ON entries (removed) WHERE removed IS NOT NULL",
        f"CREATE TABLE refusals (id INTEGER PRIMARY KEY, {provenance}, version INTEGER NOT NULL)",
        "CREATE INDEX refusal_version ON refusals (version)",
    )


# Covers queries of live entries by source and label, without reading embeddings.
_LIVE = "CREATE INDEX entry_live ON entries (added, removed, source, emotion, predicted, sha256)"
_RECORDS = _records(_PROVENANCE, _LIVE)
FORMAT_1 = tuple(
    _records(provenance, live)
    for provenance in (_JUDGED + _MADE, _PROVENANCE)
    for live in (
        "CREATE INDEX entry_added ON entries (added)",
        "CREATE INDEX entry_live ON entries (added, removed, source, emotion, predicted)",
    )
)
"""The statements of the variants of format 1."""
_HISTORY = (
    """CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    what TEXT NOT NULL,
    version INTEGER NOT NULL,
    added INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    refused INTEGER NOT NULL
    )""",
    "CREATE TABLE tags (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID",
    # A full-text index; the prompts themselves are in `entries`. Triggers keep it up to date.
    """CREATE VIRTUAL TABLE prompts USING fts5(
    prompt, content='entries', content_rowid='id', tokenize='porter unicode61'
    )""",
    """CREATE TRIGGER prompt_came AFTER INSERT ON entries BEGIN
    INSERT INTO prompts (rowid, prompt) VALUES (new.id, new.prompt);
    END""",
    """CREATE TRIGGER prompt_left AFTER DELETE ON entries BEGIN
    INSERT INTO prompts (prompts, rowid, prompt) VALUES ('delete', old.id, old.prompt);
    END""",
)
INDEX_PROMPTS = "INSERT INTO prompts (prompts) VALUES ('rebuild')"
"""Rebuilds the full-text index of prompts, without traces of deleted entries."""


def create_tables(db: sqlite3.Connection) -> None:
    """Make the tables."""
    for statement in (*_RECORDS, *_HISTORY):
        db.execute(statement)


def create(db: sqlite3.Connection, dim: int, model_hash: str, index: str) -> None:
    """Make an empty bank."""
    create_tables(db)
    meta = {"format": FORMAT, "dim": dim, "model_hash": model_hash, "index": index}
    meta |= {"generation": 0, "version": 0, "oldest": 0, "last_id": 0}
    db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    log(db, "init", 0)


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Upgrade a bank of format 1, at `version`, within the caller's transaction."""
    for table in ("entries", "refusals"):
        columns = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        if "scores" not in columns:
            db.execute(f"ALTER TABLE {table} ADD COLUMN fingerprint INTEGER")
            db.execute(f"ALTER TABLE {table} ADD COLUMN scores TEXT NOT NULL DEFAULT '{{}}'")
    for statement in ("DROP INDEX IF EXISTS entry_added", "DROP INDEX IF EXISTS entry_live"):
        db.execute(statement)
    for statement in (_LIVE, *_HISTORY, INDEX_PROMPTS):
        db.execute(statement)
    db.executemany("INSERT INTO meta VALUES (?, 0)", [("oldest",), ("last_id",)])
    db.execute("UPDATE meta SET value = ? WHERE key = 'format'", (FORMAT,))
    log(db, "upgrade", version)


def log(
    db: sqlite3.Connection,
    what: str,
    version: int,
    *,
    added: int = 0,
    removed: int = 0,
    refused: int = 0,
) -> None:
    """Log an event, after which the bank is at `version`."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    db.execute(
        "INSERT INTO events (time, what, version, added, removed, refused)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (now, what, version, added, removed, refused),
    )
