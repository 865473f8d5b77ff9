"""The database file of a bank: who may write, what a reader sees, one transaction at a time.

Every change is one version. What changes the past (a rollback, a compaction, another embedder)
starts a new *generation*, so a cache that followed it knows it is stale.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from emosym.errors import UserError
from emosym.files import replacing
from memory_bank.store import schema
from memory_bank.store.entry import INTEGER_END
from memory_bank.store.lock import WriterLock

DATABASE = "bank.sqlite"
AUTO = schema.AUTO


@dataclass(frozen=True, slots=True)
class State:
    """What a reader sees: a version of a generation (`generation` counts changes of the past)."""

    generation: int
    version: int


class Database:
    """The SQLite file of a bank folder, read at one state.

    A writer brings a bank of an older format up to date. Raises `UserError` when the folder holds
    no bank or a newer format, has another writer for longer than `wait` seconds, or is to be read
    in an older format.
    """

    def __init__(self, path: Path, *, writable: bool, wait: float = 0) -> None:
        self.path = path
        if not (path / DATABASE).is_file():
            raise UserError(
                f"not a memory bank: {path}",
                got=f"no {DATABASE} in it",
                fix="create one there first",
            )
        self._lock = None
        if writable:
            what = f"the memory bank {path}"
            self._lock = WriterLock(path / "writer.lock", what, "open it for reading", wait=wait)
        try:
            with self._sound():
                self._db = _connect(path, writable=writable)
            try:
                self._upgrade()
                with self._sound():
                    meta = self._meta()
                self.dim, self.model_hash = meta["dim"], str(meta.get("model_hash"))
                self.index = str(meta.get("index", AUTO))
                self.state = State(meta["generation"], meta["version"])
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            self._release()
            raise

    @staticmethod
    def create(path: Path, dim: int, model_hash: str, index: str) -> None:
        """Make an empty bank at once and completely: built beside `path`, then renamed.

        Raises `UserError` when `path` is not an empty or missing folder, or cannot be written.
        """
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UserError(
                f"cannot create a memory bank at {path}",
                got="a bank" if (path / DATABASE).exists() else "something else there already",
                expected="a missing or empty folder",
            )
        if dim < 1:
            raise UserError("the dimension of a bank", got=dim, expected="at least 1")
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

    def refresh(self, version: int | None = None) -> None:
        """Move to the newest state, or to an older version of the newest generation.

        Raises `UserError` when the bank has no such version, or got another embedder.
        """
        with self._sound():
            meta = self._meta()
        if str(meta.get("model_hash")) != self.model_hash:
            raise UserError(
                f"the memory bank {self.path} was rebuilt for another model",
                got=f"model {meta.get('model_hash')}",
                expected=f"model {self.model_hash}",
                fix="open it anew",
            )
        if version is None:
            version = meta["version"]
        elif self.writable and self.oldest <= version < meta["version"]:
            raise UserError("a writer works on the newest version", got=version, fix="roll back")
        self.check_version(version)
        self.state = State(meta["generation"], version)

    @property
    def oldest(self) -> int:
        """The oldest version that can be reached."""
        with self._sound():
            return self._meta()["oldest"]

    def check_version(self, version: int) -> None:
        """Raise `UserError` when the bank has no such version, or no longer."""
        with self._sound():
            meta = self._meta()
        oldest, newest = meta["oldest"], meta["version"]
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
        """End the open transaction: the bank is in `state` now, and remembers what happened."""
        self.set_meta(version=state.version, generation=state.generation)
        schema.log(self._db, what, state.version, added=added, removed=removed, refused=refused)
        self._db.execute("COMMIT")
        self.state = state

    def set_meta(self, **values: object) -> None:
        """Change what the bank says of itself, within the open transaction."""
        self._db.executemany(
            "UPDATE meta SET value = ? WHERE key = ?", [(v, key) for key, v in values.items()]
        )

    @contextmanager
    def writing(self, told: str = "the bank is unchanged") -> Iterator[sqlite3.Connection]:
        """Give the database to write to; what is not committed at the end never was.

        Raises `UserError` for a reader, and when the disk refuses; it ends with `told`.
        """
        if self._lock is None:
            raise UserError(f"the memory bank {self.path} is open for reading", fix="use mode='a'")
        try:
            yield self._db
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"cannot write to the memory bank {self.path}",
                got=error,
                fix=f"free some space or mend the folder's rights; {told}",
            ) from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the database to read one moment of.

        Raises `UserError` when it is damaged, or when a writer changed the past of `state`.
        """
        self._db.execute("BEGIN")
        try:
            with self._sound():
                if self._meta()["generation"] != self.state.generation:
                    raise UserError(
                        f"the past of the memory bank {self.path} was changed by its writer",
                        fix="reload it",
                    )
                yield self._db
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Tell in one line what SQLite cannot do, or what values put into it by others prevent."""
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

    def _meta(self) -> dict[str, object]:
        """Return what the bank says of itself; raise UserError for a newer format."""
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        keys = ["format", "dim", "generation", "version"]
        if meta.get("format") == schema.FORMAT:
            keys += ["oldest", "last_id"]
        for key in keys:
            value = meta.get(key)
            if not isinstance(value, int) or not 0 <= value < INTEGER_END - 1:
                raise ValueError(f"its {key} is {value!r}")
        if meta["format"] > schema.FORMAT:
            raise UserError(
                f"the memory bank {self.path} was made by a newer version",
                got=f"format {meta['format']}",
                expected=f"format {schema.FORMAT} or older",
                fix="update emosym",
            )
        return meta

    def _upgrade(self) -> None:
        with self._sound():
            meta = self._meta()
        if meta["format"] == schema.FORMAT:
            return
        if not self.writable:
            raise UserError(
                f"the memory bank {self.path} was made by an older version",
                got=f"format {meta['format']}",
                expected=f"format {schema.FORMAT}",
                fix="bring it up to date with `emosym bank init`, or open it with mode='a'",
            )
        with self.writing() as db:
            db.execute("BEGIN IMMEDIATE")
            schema.upgrade(db, meta["version"])
            db.execute("COMMIT")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    flags = "mode=rw" if writable else "mode=ro"
    if not writable and not os.access(path, os.W_OK) and not (path / f"{DATABASE}-wal").exists():
        # WAL readers create shared memory beside the database. Where they may not, nobody can be
        # writing either, so the file can be read as it is.
        flags = "immutable=1"
    db = sqlite3.connect(
        f"file:{quote(str(path.resolve() / DATABASE))}?{flags}", uri=True, isolation_level=None
    )
    if writable:
        db.execute("PRAGMA synchronous = FULL")
        # Pages that many batches touch reach the database once: every 32 MB of journal.
        db.execute("PRAGMA wal_autocheckpoint = 8192")
    return db
