"""The truth of the bank: a SQLite database of records, each with its image file already in place.

Every batch is one transaction and one version. A rollback cuts the history back to a version and
starts a new *generation*, so a cache that followed the discarded versions knows it is stale.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar, get_origin, get_type_hints
from urllib.parse import quote

import numpy as np

from emosym.errors import UserError
from memory_bank.durable import sync_folder
from memory_bank.entry import Candidate, Decision, Entry, Provenance, Refusal
from memory_bank.images import (
    ImageFile,
    image_path,
    is_lost,
    read_image,
    remove_orphans,
    write_images,
)
from memory_bank.lock import WriterLock

T = TypeVar("T")

FORMAT = 1
"""Version of the schema below; a bank with a higher one is not opened."""
DATABASE = "bank.sqlite"
AUTO = "auto"
"""The kind of index of a bank that names none: chosen by size."""
_CHUNK = 500
"""Ids a query: well below SQLite's limit of bound values."""

_PROVENANCE = tuple(field.name for field in fields(Provenance))
_VALUES = operator.attrgetter(*_PROVENANCE)
_PROVENANCE_SQL = """
    source TEXT NOT NULL CHECK (source IN ('real', 'synthetic')),
    emotion TEXT, valence REAL, arousal REAL,
    predicted TEXT, predicted_valence REAL, predicted_arousal REAL, confidence REAL, contrast REAL,
    fingerprint INTEGER, scores TEXT NOT NULL,
    prompt TEXT, seed INTEGER, model_hash TEXT, step INTEGER,
    reason TEXT NOT NULL"""
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64 AND sha256 NOT GLOB '*[^0-9a-f]*'),
    suffix TEXT NOT NULL CHECK (suffix IN ('png', 'jpg')),
    {_PROVENANCE_SQL},
    added INTEGER NOT NULL,
    removed INTEGER,
    embedding BLOB NOT NULL
);
CREATE UNIQUE INDEX live_image ON entries (sha256) WHERE removed IS NULL;
CREATE INDEX entry_live ON entries (added, removed, source, emotion, predicted, sha256);
CREATE INDEX entry_removed ON entries (removed) WHERE removed IS NOT NULL;
CREATE TABLE refusals (id INTEGER PRIMARY KEY, {_PROVENANCE_SQL}, version INTEGER NOT NULL);
CREATE INDEX refusal_version ON refusals (version);
"""
_ENTRY = ("id", "sha256", "suffix", *_PROVENANCE, "reason", "added")
_REFUSAL = (*_PROVENANCE, "reason", "version")
_LIVE = "added <= :version AND (removed IS NULL OR removed > :version)"
_LABEL = "coalesce(emotion, predicted)"
DUPLICATE = "duplicate image"
RESTORED = f"{DUPLICATE}, whose lost file is restored"


@dataclass(frozen=True, slots=True)
class State:
    """What a reader sees: a version of a generation (`generation` counts rollbacks)."""

    generation: int
    version: int


class Store:
    """Records and images of a bank folder, read at one state.

    Raises `UserError` when the folder holds no bank, a newer format, or has another writer.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self.images = path / "images"
        if not (path / DATABASE).is_file():
            raise UserError(
                f"not a memory bank: {path}",
                got=f"no {DATABASE} in it",
                fix="create one there first",
            )
        self._lock = None
        if writable:
            what = f"the memory bank {path}"
            self._lock = WriterLock(path / "writer.lock", what, "open it for reading")
        try:
            with self._sound():
                self._db = _connect(path, writable=writable)
            try:
                with self._sound():
                    meta = self._meta()
                self.dim, self.model_hash = meta["dim"], str(meta.get("model_hash"))
                self.index = str(meta.get("index", AUTO))
                self.state = State(meta["generation"], meta["version"])
                if writable:
                    with self._reading():
                        known = {row[0] for row in self._db.execute("SELECT sha256 FROM entries")}
                    with self._writing():
                        remove_orphans(self.images, known)
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
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            (draft / "images").mkdir(parents=True)
            db = sqlite3.connect(draft / DATABASE, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(_SCHEMA)
            meta = {"format": FORMAT, "dim": dim, "model_hash": model_hash}
            meta |= {"generation": 0, "version": 0, "index": index}
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            db.close()
            sync_folder(draft)
            draft.rename(path)
            sync_folder(path.parent)
        except (OSError, sqlite3.Error) as error:
            shutil.rmtree(draft, ignore_errors=True)
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

        Raises `UserError` when the bank has no such version.
        """
        with self._sound():
            newest = self._newest()
        if version is None:
            version = newest.version
        elif not 0 <= version <= newest.version:
            raise _no_version(version, newest.version)
        elif self.writable and version < newest.version:
            raise UserError("a writer works on the newest version", got=version, fix="roll back")
        self.state = State(newest.generation, version)

    # Reading: everything is as of `self.state`, whatever a writer does meanwhile.

    def entries(self, *, source: str | None = None, label: str | None = None) -> list[Entry]:
        """Return live entries in the order of their ids."""
        where, values = self._filter(source, label)
        with self._reading():
            rows = self._db.execute(
                f"SELECT {', '.join(_ENTRY)} FROM entries WHERE {where} ORDER BY id", values
            )
            return [_record(Entry, _ENTRY, row) for row in rows]

    def entries_of(self, ids: Iterable[int]) -> dict[int, Entry]:
        """Return live entries by id; an id that is not live is left out."""
        query = f"SELECT {', '.join(_ENTRY)} FROM entries WHERE {_LIVE} AND id IN"
        return self._by_id(query, ids, lambda row: _record(Entry, _ENTRY, row))

    def embeddings_of(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """Return the vectors of live entries as they were given, float32 [D] each."""
        query = f"SELECT id, embedding FROM entries WHERE {_LIVE} AND id IN"
        return self._by_id(query, ids, lambda row: np.frombuffer(row[1], np.float32, self.dim))

    def ids(self, *, source: str | None = None, label: str | None = None) -> np.ndarray:
        """Return the ids of live entries, int64 [N], ascending."""
        where, values = self._filter(source, label)
        with self._reading():
            # Unordered, so that SQLite answers from `entry_live` and never reads an embedding.
            rows = self._db.execute(f"SELECT id FROM entries WHERE {where}", values)
            return np.sort(np.fromiter((row[0] for row in rows), np.int64))

    def refusals(self) -> list[Refusal]:
        """Return the refused candidates in the order they were recorded."""
        with self._reading():
            rows = self._db.execute(
                f"SELECT {', '.join(_REFUSAL)} FROM refusals WHERE version <= ? ORDER BY id",
                (self.state.version,),
            )
            return [_record(Refusal, _REFUSAL, row) for row in rows]

    def counts(self) -> tuple[dict[tuple[str, str | None], int], int]:
        """Return the number of live entries by (source, label), and of refusals."""
        with self._reading():
            live = self._db.execute(
                f"SELECT source, {_LABEL}, count(*) FROM entries WHERE {_LIVE} GROUP BY 1, 2",
                {"version": self.state.version},
            ).fetchall()
            (refused,) = self._db.execute(
                "SELECT count(*) FROM refusals WHERE version <= ?", (self.state.version,)
            ).fetchone()
        return {(source, label): count for source, label, count in live}, refused

    def removed_since(self, version: int) -> np.ndarray:
        """Return ids that were live at an older version and are not now, int64 [N]."""
        with self._reading():
            rows = self._db.execute(
                "SELECT id FROM entries WHERE added <= :old AND removed > :old"
                " AND removed <= :version",
                {"old": version, "version": self.state.version},
            )
            return np.fromiter((row[0] for row in rows), np.int64)

    def added_since(
        self, version: int, *, rows: int = 4096
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (ids [N], vectors [N, D]) of entries live now that came after a version."""
        with self._reading():
            cursor = self._db.execute(
                f"SELECT id, embedding FROM entries WHERE added > :old AND {_LIVE} ORDER BY id",
                {"old": version, "version": self.state.version},
            )
            while chunk := cursor.fetchmany(rows):
                ids = np.array([row[0] for row in chunk], np.int64)
                vectors = np.frombuffer(b"".join(row[1] for row in chunk), np.float32)
                yield ids, vectors.reshape(len(chunk), self.dim)

    def problems(self) -> list[str]:
        """Return what is wrong with database, images and vectors; empty when all is well."""
        found: list[str] = []
        with self._reading():
            for (line,) in self._db.execute("PRAGMA integrity_check"):
                if line != "ok":
                    found.append(f"database: {line}")
            rows = self._db.execute(
                "SELECT id, sha256, suffix, embedding, added, removed FROM entries"
                " WHERE added <= ? ORDER BY id",
                (self.state.version,),
            )
            for number, sha256, suffix, embedding, added, removed in rows:
                name = f"entry {number}"
                if removed is not None and removed <= added:
                    found.append(f"{name}: removed at version {removed}, added at {added}")
                if len(embedding) != 4 * self.dim:
                    found.append(f"{name}: embedding of {len(embedding)} bytes")
                try:
                    if len(embedding) == 4 * self.dim:
                        check_vectors(np.frombuffer(embedding, np.float32), self.dim)
                    if read_image(image_path(self.images, sha256, suffix)).sha256 != sha256:
                        found.append(f"{name}: image does not match its hash {sha256}")
                except UserError as error:
                    found.append(f"{name}: {error}")
        return found

    # Writing: one transaction each.

    def record(self, decisions: Sequence[Decision], evict: Sequence[int] = ()) -> list[Decision]:
        """Write a batch durably as the next version; return the decisions as they were taken.

        Entries `evict` leave in the same version.

        An admitted candidate whose image is live already becomes a refusal (`DUPLICATE`), and
        brings its file back where that was lost or damaged (`RESTORED`). No decisions, no new
        version. Raises `UserError`, with the bank unchanged, for a vector or an image that cannot
        be kept, for an id that is not live and when the disk cannot take the batch.
        """
        self._check_live(evict)
        if not decisions and not evict:
            return []
        taken: list[tuple[Decision, ImageFile | None, np.ndarray | None]] = []
        for decision in decisions:
            candidate, file, vector = decision.candidate, None, None
            if decision.admitted:
                _check_numbers(candidate)
                vector = check_vector(candidate.embedding, self.dim)
                file = read_image(candidate.image)
            taken.append((decision, file, vector))
        held = self._held(file.sha256 for _, file, _ in taken if file is not None)
        files: dict[str, ImageFile] = {}
        for place, (decision, file, _) in enumerate(taken):
            if file is None:
                continue
            if file.sha256 in files or file.sha256 in held:
                reason = DUPLICATE
                if file.sha256 not in files and is_lost(self.images, file):
                    reason, files[file.sha256] = RESTORED, file
                decision = Decision(candidate=decision.candidate, admitted=False, reason=reason)
                taken[place] = (decision, None, None)
            else:
                files[file.sha256] = file
        version = self.state.version + 1
        with self._writing():
            # The files before the transaction that names them: a power cut in between leaves
            # files of no entry, which the next writer sweeps, and never an entry without its file.
            write_images(self.images, files.values())
            self._db.execute("BEGIN IMMEDIATE")
            (last,) = self._db.execute("SELECT coalesce(max(id), 0) FROM entries").fetchone()
            entries, refusals = [], []
            for decision, file, vector in taken:
                row = (*_provenance(decision.candidate), decision.reason, version)
                if file is None:
                    refusals.append(row)
                else:
                    last += 1
                    entries.append((last, file.sha256, file.suffix, *row, vector.tobytes()))
            self._db.executemany(_insert("entries", (*_ENTRY, "embedding")), entries)
            self._db.executemany(_insert("refusals", _REFUSAL), refusals)
            self._take_out(evict, version)
            self._commit(State(self.state.generation, version))
        return [decision for decision, _, _ in taken]

    def remove(self, ids: Sequence[int]) -> None:
        """Take entries out of the bank as the next version; their files stay for rollbacks.

        Raises `UserError`, with the bank unchanged, for an id that is not live.
        """
        self.record((), ids)

    def keep_index(self, setting: str) -> None:
        """Remember which kind of index the bank should have, from now on."""
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('index', ?)", (setting,))
        self.index = setting

    def rollback(self, version: int) -> None:
        """Restore exactly the records of a version and forget everything newer.

        Raises `UserError` when there is no such version.
        """
        if not 0 <= version <= self.state.version:
            raise _no_version(version, self.state.version)
        if version == self.state.version:
            return
        with self._writing():
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM entries WHERE added > ?", (version,))
            self._db.execute("UPDATE entries SET removed = NULL WHERE removed > ?", (version,))
            self._db.execute("DELETE FROM refusals WHERE version > ?", (version,))
            self._commit(State(self.state.generation + 1, version))

    def _check_live(self, ids: Sequence[int]) -> None:
        query = f"SELECT id FROM entries WHERE {_LIVE} AND id IN"
        missing = sorted(set(ids) - self._by_id(query, ids, lambda row: row[0]).keys())
        if missing:
            raise UserError("no such entry in the memory bank", got=f"id {missing[0]}")

    def _take_out(self, ids: Sequence[int], version: int) -> None:
        self._db.executemany(
            "UPDATE entries SET removed = ? WHERE id = ?", [(version, int(n)) for n in ids]
        )

    def _commit(self, state: State) -> None:
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'version'", (state.version,))
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'generation'", (state.generation,))
        self._db.execute("COMMIT")
        self.state = state

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self._lock is None:
            raise UserError(f"the memory bank {self.path} is open for reading", fix="use mode='a'")
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"cannot write to the memory bank {self.path}",
                got=error,
                fix="free some space or mend the folder's rights; the bank is unchanged",
            ) from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            with self._sound():
                if self._newest().generation != self.state.generation:
                    raise UserError(
                        f"the memory bank {self.path} was rolled back by its writer",
                        fix="reload it",
                    )
                yield
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
        for key in ("format", "dim", "generation", "version"):
            value = meta.get(key)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"its {key} is {value!r}")
        if meta["format"] > FORMAT:
            raise UserError(
                f"the memory bank {self.path} was made by a newer version",
                got=f"format {meta['format']}",
                expected=f"format {FORMAT} or older",
                fix="update emosym",
            )
        return meta

    def _newest(self) -> State:
        meta = self._meta()
        return State(meta["generation"], meta["version"])

    def _held(self, hashes: Iterable[str]) -> set[str]:
        """Return those of the hashes whose images are live."""
        wanted, found = list(hashes), set()
        with self._sound():
            for start in range(0, len(wanted), _CHUNK):
                chunk = wanted[start : start + _CHUNK]
                marks = ", ".join("?" * len(chunk))
                query = f"SELECT sha256 FROM entries WHERE removed IS NULL AND sha256 IN ({marks})"
                found |= {row[0] for row in self._db.execute(query, chunk)}
        return found

    def _filter(self, source: str | None, label: str | None) -> tuple[str, dict[str, object]]:
        where, values = _LIVE, {"version": self.state.version, "source": source, "label": label}
        if source is not None:
            where += " AND source = :source"
        if label is not None:
            where += f" AND {_LABEL} = :label"
        return where, values

    def _by_id(self, query: str, ids: Iterable[int], read: Callable[[tuple], T]) -> dict[int, T]:
        wanted = [int(number) for number in ids]
        query = query.replace(":version", str(self.state.version))
        found: dict[int, T] = {}
        with self._reading():
            for start in range(0, len(wanted), _CHUNK):
                chunk = wanted[start : start + _CHUNK]
                marks = ", ".join("?" * len(chunk))
                rows = self._db.execute(f"{query} ({marks})", chunk)
                found |= {row[0]: read(row) for row in rows}
        return found

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def check_vectors(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Return one vector [D] or several [N, D] as float32 of the same shape.

    Raises `UserError` when the bank cannot compare them: another dimension, NaN, infinite, zero.
    """
    array = np.asarray(vectors)
    if array.ndim not in (1, 2) or array.shape[-1] != dim:
        raise UserError(
            "embedding of the wrong shape", got=list(array.shape), expected=f"dimension {dim}"
        )
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError("embedding with NaN or infinite values", expected="finite values")
    if not array.any(axis=-1).all():
        raise UserError("embedding is a zero vector", expected="a vector with a direction")
    return array


def check_vector(vector: np.ndarray, dim: int) -> np.ndarray:
    """Return exactly one vector as float32 [D]. Raises as `check_vectors`."""
    if np.ndim(vector) != 1:
        raise UserError(
            "embedding of the wrong shape", got=list(np.shape(vector)), expected=f"[{dim}]"
        )
    return check_vectors(vector, dim)


def _check_numbers(candidate: Candidate) -> None:
    names = ("predicted_valence", "predicted_arousal", "confidence", "contrast")
    known = {name: getattr(candidate, name) for name in names} | dict(candidate.scores)
    for name, value in known.items():
        if value is not None and not math.isfinite(value):
            raise UserError(f"{name} of an image to keep", got=value, expected="a finite number")


def _provenance(candidate: Candidate) -> list[object]:
    """Return the values in the order of `_PROVENANCE`, NumPy scalars as Python's own."""
    values = [
        value.item() if isinstance(value, np.generic) else value for value in _VALUES(candidate)
    ]
    scores = {key: float(each) for key, each in candidate.scores.items()}
    values[_PROVENANCE.index("scores")] = json.dumps(scores)
    return values


def _record(cls: type[T], columns: Sequence[str], row: tuple) -> T:
    """Return a row as `cls`; raise ValueError for a value that none of its fields can hold."""
    values = dict(zip(columns, row, strict=True))
    values["scores"] = json.loads(values["scores"])
    for name, kind in _kinds(cls).items():
        if not isinstance(values[name], kind):
            raise ValueError(f"{name} of an image is {values[name]!r}")
    return cls(**values)


@functools.cache
def _kinds(cls: type) -> dict[str, type]:
    """Return the types of a record's fields; what a Literal may be the database checks itself."""
    hints = get_type_hints(cls)
    hints["scores"] = dict
    return {name: kind for name, kind in hints.items() if get_origin(kind) is not Literal}


def _insert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"


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


def _no_version(version: int, newest: int) -> UserError:
    return UserError("no such version of the memory bank", got=version, expected=f"0 to {newest}")
