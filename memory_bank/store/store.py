"""The store: records in the database and image files, of which the index is a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from emosym.errors import UserError, unknown
from memory_bank.store.database import Database, State
from memory_bank.store.entry import INTEGER_END, NUMBER_END, Decision, Entry, Refusal
from memory_bank.store.filter import COLUMNS, Filter
from memory_bank.store.image_files import delete_images, is_lost, orphans, write_images
from memory_bank.store.images import ImageFile, read_images
from memory_bank.store.rows import ENTRY, REFUSAL, check_numbers, insert_sql, provenance, record_of
from memory_bank.store.vectors import check_each, check_vectors
from memory_bank.words import bm25

T = TypeVar("T")

EVERYTHING = Filter()
_CHUNK = 500
"""Ids per query, well below SQLite's limit of bound values."""

LIVE = "added <= :version AND (removed IS NULL OR removed > :version)"
_LABEL = "coalesce(emotion, predicted)"
DUPLICATE = "duplicate image"
RESTORED = f"{DUPLICATE}, whose lost file is restored"


_Row = tuple[Decision, tuple[ImageFile, np.ndarray] | None]


@dataclass(frozen=True, slots=True)
class _Batch:
    """A checked batch of decisions, in which duplicates are refused."""

    rows: list[_Row]
    """(decision, image file and vector if it is admitted)."""
    files: list[ImageFile]
    """Files to write."""

    @property
    def admitted(self) -> int:
        return sum(content is not None for _, content in self.rows)


class Store(Database):
    """Records and images of a bank folder, read at one state; a batch makes one version.

    Opening for writing deletes files that a crash left. Raises `UserError` as `Database`.
    """

    def __init__(self, path: Path, *, writable: bool, wait: float = 0) -> None:
        super().__init__(path, writable=writable, wait=wait)
        try:
            if writable:
                self.sweep()
        except BaseException:
            self.close()
            raise

    # Reading: all results are of `self.state`, independent of a concurrent writer.

    def entries(self, condition: Filter = EVERYTHING) -> list[Entry]:
        """Return live entries in the order of their ids. Raises `UserError` for unknown scores."""
        where, values = self._live(condition)
        with self.reading():
            rows = self._db.execute(
                f"SELECT {', '.join(ENTRY)} FROM entries WHERE {where} ORDER BY id", values
            )
            return [record_of(Entry, ENTRY, row) for row in rows]

    def word_scores(self, words: list[str], condition: Filter) -> dict[int, float]:
        """Return the BM25 of live entries whose prompts share words, by id, see `words.bm25`."""
        where, values = self._live(condition)
        with self.reading() as db:
            return bm25(db, words, where, values)

    def entries_of(self, ids: Iterable[int]) -> dict[int, Entry]:
        """Return live entries by id; an id that is not live is left out."""
        query = f"SELECT {', '.join(ENTRY)} FROM entries WHERE {LIVE} AND id IN"
        return self._by_id(query, ids, lambda row: record_of(Entry, ENTRY, row))

    def embeddings_of(self, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """Return the vectors of live entries as they were given, float32 [D] each."""
        query = f"SELECT id, embedding FROM entries WHERE {LIVE} AND id IN"
        return self._by_id(query, ids, lambda row: np.frombuffer(row[1], np.float32, self.dim))

    def ids(self, condition: Filter = EVERYTHING) -> np.ndarray:
        """Return the ids of live entries, int64 [N], ascending. Raises as `entries`."""
        where, values = self._live(condition)
        with self.reading():
            # Unordered, so that SQLite answers from `entry_live` and never reads an embedding.
            rows = self._db.execute(f"SELECT id FROM entries WHERE {where}", values)
            return np.sort(np.fromiter((row[0] for row in rows), np.int64))

    def refusals(self) -> list[Refusal]:
        """Return the refused candidates in the order they were recorded."""
        with self.reading():
            rows = self._db.execute(
                f"SELECT {', '.join(REFUSAL)} FROM refusals WHERE version <= ? ORDER BY id",
                (self.state.version,),
            )
            return [record_of(Refusal, REFUSAL, row) for row in rows]

    def counts(self) -> tuple[dict[tuple[str, str | None], int], int]:
        """Return the number of live entries by (source, label), and of refusals."""
        with self.reading():
            live = self._db.execute(
                f"SELECT source, {_LABEL}, count(*) FROM entries WHERE {LIVE} GROUP BY 1, 2",
                {"version": self.state.version},
            ).fetchall()
            (refused,) = self._db.execute(
                "SELECT count(*) FROM refusals WHERE version <= ?", (self.state.version,)
            ).fetchone()
        return {(source, label): count for source, label, count in live}, refused

    def last_change(self, version: int) -> tuple[object, ...]:
        """Return the last event and the newest entry up to a version.

        They differ between banks, and between copies of a bank with different histories.
        """
        with self.reading():
            logged = self._db.execute(
                "SELECT number, time, what, added, removed FROM events WHERE version <= ?"
                " ORDER BY number DESC LIMIT 1",
                (version,),
            ).fetchone()
            # The plus keeps SQLite from using the index `entry_live`: it scans ids downwards.
            newest = self._db.execute(
                "SELECT id, sha256 FROM entries WHERE +added <= ? ORDER BY id DESC LIMIT 1",
                (version,),
            ).fetchone()
        return logged, newest

    def removed_since(self, version: int) -> np.ndarray:
        """Return ids that were live at an older version and no longer are, int64 [N]."""
        with self.reading():
            rows = self._db.execute(
                "SELECT id FROM entries WHERE added <= :old AND removed > :old"
                " AND removed <= :version",
                {"old": version, "version": self.state.version},
            )
            return np.fromiter((row[0] for row in rows), np.int64)

    def added_since(
        self, version: int, *, rows: int = 4096
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (ids [N], vectors [N, D]) of live entries added after a version."""
        with self.reading():
            cursor = self._db.execute(
                f"SELECT id, embedding FROM entries WHERE added > :old AND {LIVE} ORDER BY id",
                {"old": version, "version": self.state.version},
            )
            while chunk := cursor.fetchmany(rows):
                ids = np.array([row[0] for row in chunk], np.int64)
                vectors = np.frombuffer(b"".join(row[1] for row in chunk), np.float32)
                yield ids, check_vectors(vectors.reshape(len(chunk), self.dim), self.dim)

    # Writing: one transaction each.

    def record(
        self, decisions: Sequence[Decision], evict: Sequence[int] = (), *, what: str
    ) -> list[Decision]:
        """Write a batch durably as the next version; return the final decisions.

        Entries `evict` are removed in the same version. `what` is the name of the event in the log.
        An admitted candidate whose image is live already is refused instead (`DUPLICATE`); if the
        image file was lost or damaged it is restored (`RESTORED`). Without decisions and evictions
        there is no new version.

        Raises `UserError`, with the bank unchanged, for an invalid vector or image, for an id that
        is not live, and when the disk refuses.
        """
        self._check_live(evict)
        if not decisions and not evict:
            return []
        batch = self._check(decisions)
        with self._sweeping_on_error(), self.writing() as db:
            # Files are written before the transaction that names them: a crash in between leaves
            # files without entry, which the next writer deletes, but no entry without its file.
            write_images(self.path, batch.files)
            db.execute("BEGIN IMMEDIATE")
            state = State(self.state.generation, self.state.version + 1)
            self._insert(batch, self.last_id(), state.version)
            self._mark_removed(evict, state.version)
            self.commit(
                state,
                what,
                added=batch.admitted,
                removed=len(set(evict)),
                refused=len(decisions) - batch.admitted,
            )
        return [decision for decision, _ in batch.rows]

    def record_stream(self, batches: Iterable[Sequence[Decision]], *, what: str) -> tuple[int, int]:
        """Write batches as one version, one batch in memory at a time; return (admitted, refused).

        Raises `UserError` as `record`, and whatever `batches` raises, with the bank unchanged.
        """
        state = State(self.state.generation, self.state.version + 1)
        last, admitted, refused = self.last_id(), 0, 0
        with self._sweeping_on_error(), self.writing() as db:
            db.execute("BEGIN IMMEDIATE")
            for decisions in batches:
                batch = self._check(decisions)
                write_images(self.path, batch.files)
                self._insert(batch, last + admitted, state.version)
                admitted += batch.admitted
                refused += len(decisions) - batch.admitted
            if admitted or refused:
                self.commit(state, what, added=admitted, refused=refused)
        return admitted, refused

    def _check(self, decisions: Sequence[Decision]) -> _Batch:
        """Check the admitted candidates, and refuse those whose images are live already."""
        admitted = [decision.candidate for decision in decisions if decision.admitted]
        for candidate in admitted:
            check_numbers(candidate)
        vectors = iter(check_each([candidate.embedding for candidate in admitted], self.dim))
        images = iter(read_images([candidate.image for candidate in admitted]))
        rows: list[_Row] = [
            (decision, (next(images), next(vectors)) if decision.admitted else None)
            for decision in decisions
        ]
        held = self._held(content[0].sha256 for _, content in rows if content is not None)
        files: dict[str, ImageFile] = {}
        for place, (decision, content) in enumerate(rows):
            if content is None:
                continue
            file = content[0]
            if file.sha256 in files or file.sha256 in held:
                reason = DUPLICATE
                if file.sha256 not in files and is_lost(self.path, file):
                    reason, files[file.sha256] = RESTORED, file
                decision = Decision(candidate=decision.candidate, admitted=False, reason=reason)
                rows[place] = (decision, None)
            else:
                files[file.sha256] = file
        return _Batch(rows, list(files.values()))

    def _insert(self, batch: _Batch, last: int, version: int) -> None:
        """Insert entries, with ids from `last` + 1 on, and refusals, within the transaction."""
        entries: list[tuple[object, ...]] = []
        refusals: list[tuple[object, ...]] = []
        for decision, content in batch.rows:
            row = (*provenance(decision.candidate), decision.reason, version)
            if content is None:
                refusals.append(row)
            else:
                file, vector = content
                last += 1
                entries.append((last, file.sha256, file.suffix, *row, vector.tobytes()))
        self._db.executemany(insert_sql("entries", (*ENTRY, "embedding")), entries)
        self._db.executemany(insert_sql("refusals", REFUSAL), refusals)

    def remove(self, ids: Sequence[int]) -> None:
        """Remove entries as the next version; their files are kept for rollbacks.

        Raises `UserError`, with the bank unchanged, for an id that is not live.
        """
        self.record((), ids, what="remove")

    def keep_index(self, setting: str) -> None:
        """Store the bank's setting of the index kind."""
        with self.writing():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('index', ?)", (setting,))
        self.index = setting

    def rollback(self, version: int) -> None:
        """Restore exactly the records of a version; delete everything newer, tags included.

        Raises `UserError` when there is no such version.
        """
        self.check_version(version)
        if version == self.state.version:
            return
        with self.writing() as db:
            db.execute("BEGIN IMMEDIATE")
            forgotten = db.execute("DELETE FROM entries WHERE added > ?", (version,)).rowcount
            back = db.execute(
                "UPDATE entries SET removed = NULL WHERE removed > ?", (version,)
            ).rowcount
            db.execute("DELETE FROM refusals WHERE version > ?", (version,))
            db.execute("DELETE FROM tags WHERE version > ?", (version,))
            state = State(self.state.generation + 1, version)
            self.commit(state, "rollback", added=back, removed=forgotten)

    def last_id(self, version: int | None = None) -> int:
        """Return the highest id ever given (up to a version), also to forgotten entries."""
        until = "" if version is None else " WHERE added <= ?"  # without condition: no scan
        (last,) = self._db.execute(
            f"SELECT max(value, (SELECT coalesce(max(id), 0) FROM entries{until}))"
            " FROM meta WHERE key = 'last_id'",
            () if version is None else (version,),
        ).fetchone()
        if last >= NUMBER_END:
            raise UserError(
                f"the memory bank {self.path} has no further ids",
                got=f"id {last}",
                fix="restore the folder from a copy",
            )
        return last

    def sweep(self) -> None:
        """Delete image files without an entry, left by a crash, a rollback or a compaction.

        Raises `UserError` when a file cannot be deleted; the next writer tries again.
        """
        with self.reading() as db:
            known = {row[0] for row in db.execute("SELECT sha256 FROM entries")}
        try:
            delete_images(self.path, list(orphans(self.path, known)))
        except OSError as error:
            raise UserError(
                f"cannot delete images that the memory bank {self.path} no longer needs",
                got=error,
                fix="correct the folder's permissions; the next writer tries again",
            ) from error

    def _check_live(self, ids: Sequence[int]) -> None:
        query = f"SELECT id FROM entries WHERE {LIVE} AND id IN"
        missing = sorted(set(ids) - self._by_id(query, ids, lambda row: row[0]).keys())
        if missing:
            raise UserError("no such entry in the memory bank", got=f"id {missing[0]}")

    def _mark_removed(self, ids: Sequence[int], version: int) -> None:
        self._db.executemany(
            "UPDATE entries SET removed = ? WHERE id = ?", [(version, int(n)) for n in ids]
        )

    @contextmanager
    def _sweeping_on_error(self) -> Iterator[None]:
        """Delete the images of a batch that failed."""
        try:
            yield
        except BaseException:
            self.sweep()
            raise

    def _held(self, hashes: Iterable[str]) -> set[str]:
        """Return those hashes whose images are live."""
        hashes, found = list(hashes), set()
        with self._sound():
            for start in range(0, len(hashes), _CHUNK):
                chunk = hashes[start : start + _CHUNK]
                marks = ", ".join("?" * len(chunk))
                query = f"SELECT sha256 FROM entries WHERE removed IS NULL AND sha256 IN ({marks})"
                found |= {row[0] for row in self._db.execute(query, chunk)}
        return found

    def _live(self, condition: Filter) -> tuple[str, dict[str, object]]:
        """Return the SQL condition of live entries that pass a filter, and its bound values."""
        if condition.named_scores:
            with self.reading() as db:
                rows = db.execute("SELECT DISTINCT key FROM entries, json_each(entries.scores)")
                known = {*COLUMNS, *(name for (name,) in rows)}
            for name in sorted(condition.named_scores - known):
                raise unknown("score", name, known)
        where, values = condition.where()
        return LIVE + where, values | {"version": self.state.version}

    def _by_id(self, query: str, ids: Iterable[int], read: Callable[[tuple], T]) -> dict[int, T]:
        # SQLite has no larger integers, so no entry has such an id.
        valid = [int(number) for number in ids if abs(number) < INTEGER_END]
        query = query.replace(":version", str(self.state.version))
        found: dict[int, T] = {}
        with self.reading():
            for start in range(0, len(valid), _CHUNK):
                chunk = valid[start : start + _CHUNK]
                marks = ", ".join("?" * len(chunk))
                rows = self._db.execute(f"{query} ({marks})", chunk)
                found |= {row[0]: read(row) for row in rows}
        return found
