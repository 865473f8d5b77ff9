"""The history of a bank: event log, tags of versions, and differences between versions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emosym.errors import UserError, unknown
from memory_bank.store.entry import Entry, check_integer
from memory_bank.store.rows import ENTRY, record_of
from memory_bank.store.store import LIVE, Store

_NAME = re.compile(r"(?=.*[^0-9])[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of tags; all digits would be the number of a version."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of the bank, from its log."""

    time: str
    """UTC, ISO 8601, to the second."""
    what: str
    """`init`, `add`, `admit`, `remove`, `rollback`, `compact`, `import`, `rebuild`, `upgrade`."""
    version: int
    """Version of the bank after the change."""
    added: int
    """Entries that became live."""
    removed: int
    """Entries removed; for `compact` entries deleted for good."""
    refused: int
    """Candidates refused."""


@dataclass(frozen=True, slots=True)
class Diff:
    """Differences between two versions."""

    came: list[Entry]
    """Entries of the new version only."""
    left: list[Entry]
    """Entries of the old version only."""


def events(store: Store) -> list[Event]:
    """Return all events of the bank, oldest first, including those that were rolled back."""
    with store.reading() as db:
        rows = db.execute(
            "SELECT time, what, version, added, removed, refused FROM events ORDER BY number"
        )
        return [_event(row) for row in rows]


def _event(row: tuple[object, ...]) -> Event:
    """Return a row of the log; raise ValueError for a value of a wrong type."""
    time, what, *numbers = row
    if not isinstance(time, str) or not isinstance(what, str):
        raise ValueError(f"an event is {what!r} at {time!r}")
    version, added, removed, refused = (_integer("a number of an event", one) for one in numbers)
    return Event(time, what, version, added, removed, refused)


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{name} is {value!r}")
    return value


def tags(store: Store) -> dict[str, int]:
    """Return the tags and their versions, oldest version first."""
    with store.reading() as db:
        found = dict(db.execute("SELECT name, version FROM tags ORDER BY version, name"))
        for name, version in found.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ValueError(f"the name of a tag is {name!r}")
            _integer(f"the version of tag {name}", version)
        return found


def tag(store: Store, name: str, version: int) -> None:
    """Name a version. Raises `UserError` for a bad name, one in use, and no such version."""
    if not _NAME.fullmatch(name):
        raise UserError(
            "the name of a tag",
            got=repr(name),
            expected="up to 64 letters, digits, '.', '_' and '-', not all digits",
        )
    store.check_version(version)
    known = tags(store)
    if name in known:
        raise UserError(
            f"the tag {name} is in use", got=f"version {known[name]}", fix="delete it first"
        )
    with store.writing() as db:
        db.execute("INSERT INTO tags VALUES (?, ?)", (name, version))


def untag(store: Store, name: str) -> None:
    """Delete a tag; its version stays. Raises `UserError` for an unknown one."""
    _tagged(store, name)
    with store.writing() as db:
        db.execute("DELETE FROM tags WHERE name = ?", (name,))


def version_of(store: Store, name: str | int) -> int:
    """Return the version of a number or a tag. Raises `UserError` for an unknown one."""
    if isinstance(name, int) or re.fullmatch(r"\d{1,18}", name):
        store.check_version(int(name))
        return int(name)
    return _tagged(store, name)


def _tagged(store: Store, name: str) -> int:
    known = tags(store)
    if name not in known:
        if not known:
            raise UserError(
                f"unknown tag {name!r}", expected="the number of a version; the bank has no tags"
            )
        raise unknown("tag", name, known)
    return known[name]


def version_before(store: Store, step: int) -> int:
    """Return the last version before any record of training step `step` or later."""
    check_integer("the training step", step)
    with store.reading() as db:
        (first,) = db.execute(
            "SELECT min(version) FROM ("
            " SELECT min(added) AS version FROM entries WHERE step >= :step"
            " UNION ALL SELECT min(version) FROM refusals WHERE step >= :step)",
            {"step": step},
        ).fetchone()
    version = store.state.version if first is None else first - 1
    store.check_version(version)
    return version


def diff(store: Store, old: int, new: int) -> Diff:
    """Return the entries that are live at `new` but not at `old`, and vice versa."""

    def only(here: int, there: int) -> list[Entry]:
        query = (
            f"SELECT {', '.join(ENTRY)} FROM entries"
            f" WHERE {LIVE.replace('version', 'here')}"
            f" AND NOT ({LIVE.replace('version', 'there')}) ORDER BY id"
        )
        rows = db.execute(query, {"here": here, "there": there})
        return [record_of(Entry, ENTRY, row) for row in rows]

    store.check_version(old)
    store.check_version(new)
    with store.reading() as db:
        return Diff(only(new, old), only(old, new))
