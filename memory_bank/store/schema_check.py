"""Check that a database has exactly the schema that EmoSym makes: it may come from elsewhere.

A trigger, a view, a generated column or an index on an expression acts when another statement
reaches it. So the schema is compared with ours before any other statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import cache, partial

from memory_bank.store import schema

Objects = frozenset[tuple[str, str, str]]
"""(type, name, statement that made it) of each table, index, trigger and view."""
_META = ("table", "meta", schema.META)
_MOST = 1000
"""Number of objects that are read; a bank has less than 30."""


def check_meta(db: sqlite3.Connection) -> None:
    """Raise ValueError unless the table `meta`, which tells the format, is ours."""
    found = _objects(db)
    if not any(name == "meta" for _, name, _ in found):
        raise ValueError("no such table: meta")
    if _META not in found:
        raise ValueError("its table meta is not that of a memory bank")


def differences(db: sqlite3.Connection, version: int) -> list[str]:
    """Return how the schema differs from that of a format, 1 or 2; empty if it does not."""
    found = _objects(db)
    numbers = [
        f"a changed {name}"
        for name in ("user_version", "application_id")
        if db.execute(f"PRAGMA {name}").fetchone() != (0,)
    ]
    nearest: list[str] | None = None
    for make in _made(version):
        expected = _expected(make)
        here, there = ({one[:2] for one in few} for few in (found - expected, expected - found))
        changed = [
            f"{'a changed' if one in there else 'an unknown'} {one[0]} {one[1]!r}"
            for one in sorted(here)
        ]
        changed += [f"no {kind} {name!r}" for kind, name in sorted(there - here)]
        if not changed:
            return numbers
        nearest = changed if nearest is None else min(nearest, changed, key=len)
    return numbers + (nearest or [])


def _made(version: int) -> Iterator[Callable[[sqlite3.Connection], None]]:
    """Yield the ways in which a database of a format was made."""
    if version == schema.FORMAT:
        yield schema.create_tables
    yield from _OLD[version]


def _old(statements: tuple[str, ...], upgraded: bool, db: sqlite3.Connection) -> None:
    for statement in statements:
        db.execute(statement)
    if upgraded:
        schema.upgrade(db, 0)


_OLD = {
    version: [partial(_old, statements, version > 1) for statements in schema.FORMAT_1]
    for version in (1, schema.FORMAT)
}
"""Format -> ways in which a bank that began as format 1 got there."""


@cache
def _expected(make: Callable[[sqlite3.Connection], None]) -> Objects:
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        make(db)
        return _objects(db)
    finally:
        db.close()


def _objects(db: sqlite3.Connection) -> Objects:
    rows = db.execute(f"SELECT type, name, sql FROM sqlite_master LIMIT {_MOST}")
    return frozenset((str(kind), str(name), " ".join(str(sql).split())) for kind, name, sql in rows)
