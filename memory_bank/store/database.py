"""The database file of a bank: locking, versions and transactions.

Every change makes one new version. A change of the history (rollback, compaction, rebuild for
another embedder) also starts a new *generation*, which invalidates caches of older versions.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from emosym.errors import UserError
from emosym.files import replacing
from memory_bank.confined import check_file
from memory_bank.store import schema, schema_check
from memory_bank.store.entry import NUMBER_END
from memory_bank.store.lock import WriterLock

DATABASE = "bank.sqlite"
AUTO = schema.AUTO
MAX_DIM = 2**20
"""Greatest length of a vector."""
MAX_BYTES = 2**26
"""Length of the longest text or vector in the database."""
_REMEDIES = {
    ("SQLITE_FULL", "SQLITE_IOERR", "ENOSPC", "EDQUOT", "EFBIG", "EIO"): "free some space",
    ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "EACCES", "EPERM", "EROFS"): (
        "make the folder writable"
    ),
    ("SQLITE_BUSY", "SQLITE_LOCKED"): "wait until the other program has closed it",
    ("SQLITE_CORRUPT", "SQLITE_NOTADB"): "restore the folder from a copy",
    ("SQLITE_TOOBIG",): "shorten the text",
    ("ENOTDIR", "EISDIR", "ELOOP"): "put folders and files in their places",
}
"""Starts of the names of errors of SQLite and of the system -> what to do."""
_TOLD = 5
"""Number of changes of the schema that an error lists."""


@dataclass(frozen=True, slots=True)
class State:
    """A version of a bank within a generation."""

    generation: int
    """Number of changes of the history so far."""
    version: int


@dataclass(frozen=True, slots=True)
class _Meta:
    """The table `meta`."""

    format: int
    dim: int
    model_hash: str
    index: str
    state: State
    oldest: int
    """The oldest version that can be reached."""


class Database:
    """The SQLite file of a bank folder, read at one state.

    A writer upgrades a bank of an older format. Raises `UserError` when the folder holds no bank,
    a bank of a newer format, or (for a reader) of an older one, and when another writer does not
    end within `wait` seconds.
    """

    def __init__(self, path: Path, *, writable: bool, wait: float = 0) -> None:
        self.path = path
        _check_files(path, writable=writable)
        self._lock = None
        if writable:
            what = f"the memory bank {path}"
            self._lock = WriterLock(path / "writer.lock", what, "open it for reading", wait=wait)
        try:
            with self._sound():
                self._db = _connect(path, writable=writable)
            try:
                self._check_schema()
                self._upgrade()
                self.adopt()
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            self._release()
            raise

    @staticmethod
    def create(path: Path, dim: int, model_hash: str, index: str) -> None:
        """Make an empty bank atomically: built beside `path`, then renamed.

        Raises `UserError` when `path` is not an empty or missing folder, or cannot be written.
        """
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UserError(
                f"cannot create a memory bank at {path}",
                got="a bank" if (path / DATABASE).exists() else "something else there already",
                expected="a missing or empty folder",
            )
        if not 1 <= dim <= MAX_DIM:
            raise UserError("the dimension of a bank", got=dim, expected=f"1 to {MAX_DIM}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                (draft / "images").mkdir(parents=True)
                db = sqlite3.connect(draft / DATABASE, isolation_level=None)
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                schema.create(db, dim, model_hash, index)
                db.close()
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"cannot create a memory bank at {path}", got=error) from error

    @property
    def writable(self) -> bool:
        """Whether this object may write."""
        return self._lock is not None

    def close(self) -> None:
        """Close the database and let the next writer in."""
        self._db.close()
        self._release()

    def adopt(self) -> None:
        """Take over the newest state, with its embedder and its setting of the index kind."""
        with self._sound():
            meta = self._meta()
        self.dim, self.model_hash = meta.dim, meta.model_hash
        self.index, self.state = meta.index, meta.state

    def refresh(self, version: int | None = None) -> None:
        """Move to the newest state, or to an older version of the newest generation.

        Raises `UserError` when the bank has no such version, or got another embedder.
        """
        with self._sound():
            meta = self._meta()
        if meta.model_hash != self.model_hash:
            raise UserError(
                f"the memory bank {self.path} was rebuilt for another model",
                got=f"model {meta.model_hash}",
                expected=f"model {self.model_hash}",
                fix="open it anew",
            )
        if version is None:
            version = meta.state.version
        elif self.writable and meta.oldest <= version < meta.state.version:
            raise UserError("a writer works on the newest version", got=version, fix="roll back")
        self.check_version(version)
        self.state = State(meta.state.generation, version)

    @property
    def oldest(self) -> int:
        """The oldest version that can be reached."""
        with self._sound():
            return self._meta().oldest

    def check_version(self, version: int) -> None:
        """Raise `UserError` when the bank has no such version, or has forgotten it."""
        with self._sound():
            meta = self._meta()
        oldest, newest = meta.oldest, meta.state.version
        if not oldest <= version <= newest:
            forgotten = 0 <= version < oldest
            raise UserError(
                "a version that the memory bank has forgotten"
                if forgotten
                else "no such version of the memory bank",
                got=version,
                expected=f"{oldest} to {newest}",
            )

    def commit(
        self, state: State, what: str, *, added: int = 0, removed: int = 0, refused: int = 0
    ) -> None:
        """Commit the open transaction: set the state and log the event `what`."""
        self.set_meta(version=state.version, generation=state.generation)
        schema.log(self._db, what, state.version, added=added, removed=removed, refused=refused)
        self._db.execute("COMMIT")
        self.state = state

    def set_meta(self, **values: object) -> None:
        """Change values of the table `meta` within the open transaction."""
        self._db.executemany(
            "UPDATE meta SET value = ? WHERE key = ?", [(v, key) for key, v in values.items()]
        )

    @contextmanager
    def writing(self, outcome: str = "the bank is unchanged") -> Iterator[sqlite3.Connection]:
        """Give the database to write to, and roll back what is not committed at the end.

        Raises `UserError` for a reader, and when writing fails, with a message that ends with
        `outcome`.
        """
        if self._lock is None:
            raise UserError(f"the memory bank {self.path} is open for reading", fix="use mode='a'")
        try:
            yield self._db
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"cannot write to the memory bank {self.path}",
                got=error,
                fix=f"{_remedy(error)}; {outcome}",
            ) from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the database to read, at one moment.

        Raises `UserError` when it is damaged, or when a writer changed the history of `state`.
        """
        with self.moment(), self._sound():
            if self._meta().state.generation != self.state.generation:
                raise UserError(
                    f"the history of the memory bank {self.path} was changed by its writer",
                    fix="reload it",
                )
            yield self._db

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Read the database as it is at one moment, whatever a writer does during the block."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Raise errors of SQLite, and of values that cannot be right, as `UserError`."""
        try:
            yield
        except (sqlite3.DatabaseError, TypeError, ValueError) as error:
            if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
                raise UserError(f"cannot read the memory bank {self.path}", got=error) from error
            raise UserError(
                f"the database of the memory bank {self.path} is damaged",
                got=error,
                fix="restore the folder from a copy",
            ) from error

    def _check_schema(self) -> None:
        """Raise `UserError` when others than EmoSym made the tables, or a newer version did."""
        with self._sound():
            schema_check.check_meta(self._db)
            version = self._meta().format
            changed = schema_check.differences(self._db, version)
        if changed:
            raise UserError(
                f"the database of the memory bank {self.path} has been changed by another program",
                got=", ".join(changed[:_TOLD]),
                expected=f"exactly the tables of format {version}",
                fix="restore the folder from a copy that you trust",
            )
        if self.writable:
            # Our triggers use the full-text index, which older SQLite counts as unsafe in triggers.
            self._db.execute("PRAGMA trusted_schema = ON")

    def _meta(self) -> _Meta:
        """Return the table `meta`; raise UserError for a newer format, ValueError if damaged."""
        meta: dict[str, Any] = dict(self._db.execute("SELECT key, value FROM meta"))
        keys = ["format", "dim", "generation", "version"]
        if meta.get("format") == schema.FORMAT:
            keys += ["oldest", "last_id"]
        for key in keys:
            value = meta.get(key)
            if not isinstance(value, int) or not 0 <= value < NUMBER_END:
                raise ValueError(f"its {key} is {value!r}")
        if not 1 <= meta["dim"] <= MAX_DIM:
            raise ValueError(f"its dim is {meta['dim']}")
        if meta["format"] > schema.FORMAT:
            raise UserError(
                f"the memory bank {self.path} was made by a newer version",
                got=f"format {meta['format']}",
                expected=f"format {schema.FORMAT} or older",
                fix="update emosym",
            )
        return _Meta(
            format=meta["format"],
            dim=meta["dim"],
            model_hash=str(meta.get("model_hash")),
            index=str(meta.get("index", AUTO)),
            state=State(meta["generation"], meta["version"]),
            oldest=meta.get("oldest", 0),
        )

    def _upgrade(self) -> None:
        with self._sound():
            meta = self._meta()
        if meta.format == schema.FORMAT:
            return
        if not self.writable:
            raise UserError(
                f"the memory bank {self.path} was made by an older version",
                got=f"format {meta.format}",
                expected=f"format {schema.FORMAT}",
                fix="upgrade it with `emosym bank init`, or open it with mode='a'",
            )
        with self.writing() as db:
            db.execute("BEGIN IMMEDIATE")
            schema.upgrade(db, meta.state.version)
            db.execute("COMMIT")
        self._check_schema()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _remedy(error: OSError | sqlite3.Error) -> str:
    """Return what to do about a failed write."""
    name = getattr(error, "sqlite_errorname", "") or errno.errorcode.get(
        getattr(error, "errno", None) or 0, ""
    )
    for names, remedy in _REMEDIES.items():
        if name.startswith(names):
            return remedy
    return "check the disk, the folder's permissions and `emosym bank verify`"


def _check_files(path: Path, *, writable: bool) -> None:
    """Check what SQLite will open by name: it follows links, and waits for pipes.

    Raises `UserError` when there is no database, when it or a file of SQLite beside it is no
    regular file or has other names, and when there is a rollback journal.
    """
    try:
        if check_file(path / DATABASE, writable=writable):
            for name in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
                check_file(path / name, writable=True)
            # A journal can name a file anywhere that SQLite then deletes.
            if os.path.lexists(path / f"{DATABASE}-journal"):
                raise UserError(
                    f"{path / DATABASE}-journal is not of a memory bank",
                    expected=f"no rollback journal beside {DATABASE}",
                    fix="restore the folder from a copy that you trust",
                )
            return
        found = f"no {DATABASE} in it"
    except OSError as error:
        found = error.strerror or str(error)
    raise UserError(
        f"not a memory bank: {path}", got=found, fix="`emosym bank add` makes one in a new folder"
    )


def _connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    flags = "mode=rw" if writable else "mode=ro"
    if not writable and not os.access(path, os.W_OK) and not (path / f"{DATABASE}-wal").exists():
        # WAL readers create shared memory beside the database. Without permission to do so there
        # can be no writer either, so the file can be read as it is.
        flags = "immutable=1"
    db = sqlite3.connect(
        f"file:{quote(str(path.resolve() / DATABASE))}?{flags}", uri=True, isolation_level=None
    )
    # The file may come from elsewhere: what is in its schema runs no functions, its pages are
    # checked before they are used, and no value in it is larger than any of ours.
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)
    if sys.version_info >= (3, 12):
        db.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE)
    if writable:
        db.execute("PRAGMA synchronous = FULL")
        # Checkpoint every 32 MB of journal: a page that many batches touch is then copied once.
        db.execute("PRAGMA wal_autocheckpoint = 8192")
    return db
