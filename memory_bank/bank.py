"""The Online Emotional Memory Bank: a durable, versioned store of images with a search index."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from emosym.affect.scales import Affect
from emosym.errors import UserError, unknown
from memory_bank.confined import read_file
from memory_bank.index.index import Index
from memory_bank.index.kinds import check_setting
from memory_bank.index.rebuild import Embed, rebuild
from memory_bank.search import (
    AffectHit,
    Encode,
    Hit,
    TextHit,
    check_queries,
    search_affect,
    search_embedding,
    search_text,
)
from memory_bank.store import compaction, history
from memory_bank.store.compaction import Forgotten
from memory_bank.store.database import AUTO
from memory_bank.store.entry import Candidate, Decision, Entry, Refusal
from memory_bank.store.filter import Filter
from memory_bank.store.history import Diff, Event
from memory_bank.store.image_files import image_file, image_name
from memory_bank.store.inspection import Show, problems
from memory_bank.store.statistics import statistics
from memory_bank.store.store import Store

INDEX = "index.faiss"
BY_HAND = "added by hand"


def _quietly(done: int, total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Result of recording a batch."""

    version: int
    """Version of the bank after the batch."""
    admitted: list[Decision]
    refused: list[Decision]
    """Refused by the gates, or because the bank holds the image already."""


class MemoryBank:
    """A folder of images, records and vectors with versions; one writer, any number of readers.

    A reader sees one version until `reload`, independent of the writer. Make one with `create` or
    `open`, and close it (or use `with`).

    Ref: EmoSym, memory bank (docs/papers.md).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        check_setting(store.index)
        with store.moment():
            store.adopt()
            self._index = Index(store.path / INDEX, store.dim, mapped=not store.writable)
            self._index.catch_up(store)

    @classmethod
    def create(cls, path: Path | str, dim: int, model_hash: str, *, index: str = AUTO) -> Self:
        """Make an empty bank for vectors [dim] of the embedder `model_hash`; open it for writing.

        `index` is the kind of index: "auto" (by size), "flat" (exact), "ivf" or "hnsw".
        Raises `UserError` when the folder is not empty or cannot be written, and for another kind.
        """
        Store.create(_resolved(path), dim, model_hash, check_setting(index))
        return cls.open(path, "a")

    @classmethod
    def open(
        cls,
        path: Path | str,
        mode: Literal["r", "a"] = "r",
        *,
        model_hash: str | None = None,
        index: str | None = None,
        wait: float = 0,
    ) -> Self:
        """Open a bank for reading ("r") or for reading and writing ("a").

        Opening for writing upgrades an older format, waits up to `wait` seconds for another writer
        to end, and can change the kind of `index` (see `create`) permanently.
        Raises `UserError` when there is no bank, its format is newer (or older, for a reader), it
        still has another writer, its vectors were made by another embedder than `model_hash`, or
        `index` differs for a reader.
        """
        if mode not in ("r", "a"):
            raise unknown("mode", mode, ("r", "a"))
        store = Store(_resolved(path), writable=mode == "a", wait=wait)
        try:
            with store.moment():
                store.adopt()
                if model_hash is not None and model_hash != store.model_hash:
                    raise UserError(
                        f"the vectors of the memory bank {path} were made by another model",
                        got=f"model {model_hash}",
                        expected=f"model {store.model_hash}",
                        fix="use that model, or a new bank",
                    )
                if index is None or check_setting(index) == store.index:
                    return cls(store)
            store.keep_index(index)
            return cls(store)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Save the index (as a writer) and release the lock."""
        try:
            if self._store.writable:
                self._index.save()
        finally:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def path(self) -> Path:
        """The bank's folder."""
        return self._store.path

    @property
    def dim(self) -> int:
        """Length D of its vectors."""
        return self._store.dim

    @property
    def model_hash(self) -> str:
        """Hash of the embedder that made its vectors."""
        return self._store.model_hash

    @property
    def version(self) -> int:
        """The version that this object sees; 0 is the empty bank."""
        return self._store.state.version

    def reload(self, version: int | str | None = None) -> int:
        """Move to the newest version, or to a given one (or its tag), and return it.

        A writer is always at the newest version. Raises `UserError` for an unknown version, and
        when the bank was rebuilt for another embedder meanwhile.
        """
        before = self._store.state
        with self._store.moment():
            try:
                self._store.refresh()  # the version is looked up in the newest history
                if version is not None:
                    self._store.refresh(history.version_of(self._store, version))
            except BaseException:
                self._store.state = before
                raise
            self._index.catch_up(self._store)
        return self.version

    def add(self, candidates: Iterable[Candidate], *, reason: str = BY_HAND) -> Recorded:
        """Add images without admission gates, durably, as the next version.

        All or nothing. An image that the bank holds already is refused, which is no error.
        Raises `UserError` for an invalid vector or image, or a full disk.
        """
        return self._record(
            [Decision(candidate=one, admitted=True, reason=reason) for one in candidates], (), "add"
        )

    def record(self, decisions: Sequence[Decision], *, evict: Sequence[int] = ()) -> Recorded:
        """Store admitted candidates and refusals durably, as the next version.

        Entries `evict` are removed in the same version. Raises as `add` and `remove`.
        """
        return self._record(decisions, evict, "admit")

    def remove(self, ids: Sequence[int]) -> int:
        """Remove entries as the next version and return it; a rollback can restore them.

        Raises `UserError`, with the bank unchanged, for an id that is not live.
        """
        self._store.remove(ids)
        self._index.catch_up(self._store)
        return self.version

    def load(self, batches: Iterable[Sequence[Decision]]) -> tuple[int, int]:
        """Store batches as one version, one in memory at a time; return (admitted, refused).

        All or nothing, as `record`. Raises as `add`, and what `batches` raises.
        """
        counts = self._store.record_stream(batches, what="import")
        self._index.catch_up(self._store)
        return counts

    def rollback(self, version: int | str) -> int:
        """Restore exactly the contents of a version, or of a tag, and return the version.

        Everything newer is deleted: tags, and real images too. Raises `UserError` for a version
        that is unknown or forgotten.
        """
        self._store.rollback(history.version_of(self._store, version))
        self._index.catch_up(self._store)
        self._store.sweep()
        return self.version

    def version_before(self, step: int) -> int:
        """Return the last version before any record of training step `step` or later.

        Raises `UserError` when that version is forgotten.
        """
        return history.version_before(self._store, step)

    def tags(self) -> dict[str, int]:
        """Return the tags and their versions, oldest version first."""
        return history.tags(self._store)

    def tag(self, name: str, version: int | str | None = None) -> int:
        """Name a version (default: the current one) and return it; makes no new version.

        Raises `UserError` for a bad name, one in use, and a version that does not exist.
        """
        version = self.version if version is None else history.version_of(self._store, version)
        history.tag(self._store, name, version)
        return version

    def untag(self, name: str) -> None:
        """Delete a tag; its version stays. Raises `UserError` for an unknown one."""
        history.untag(self._store, name)

    def events(self) -> list[Event]:
        """Return all events of the bank, oldest first, including those that were rolled back."""
        return history.events(self._store)

    def diff(self, old: int | str, new: int | str) -> Diff:
        """Return the entries added and removed between two versions or tags.

        Raises `UserError` for a version that does not exist.
        """
        old, new = (history.version_of(self._store, one) for one in (old, new))
        return history.diff(self._store, old, new)

    def compact(self, oldest: int | str | None = None, *, refusals: bool = False) -> Forgotten:
        """Delete for good what no version from `oldest` on needs, and free the space.

        Without `oldest`, tagged versions and the newest one stay. Versions keep their numbers, and
        ids are never reused. `refusals` also deletes every refused candidate.

        Raises `UserError` when there is no such version, and when the disk refuses.
        """
        if oldest is not None:
            oldest = history.version_of(self._store, oldest)
        forgotten = compaction.forget(self._store, oldest, refusals=refusals)
        self._index.catch_up(self._store)
        self._index.save()  # the old file holds vectors of deleted entries
        self._store.sweep()
        compaction.shrink(self._store)
        return forgotten

    def rebuild(self, embed: Embed, dim: int, model_hash: str, show: Show = _quietly) -> int:
        """Recompute all vectors, [dim] each, with another embedder; return the new version.

        `embed` takes image files and returns vectors [N, dim]. The change is atomic. The history
        starts anew: older versions and tags are deleted.

        Raises `UserError`, with the bank unchanged, for an unusable image or vector.
        """
        rebuild(self._store, embed, dim, model_hash, show)
        with suppress(OSError):  # it is of no use now, whatever it is
            (self.path / INDEX).unlink()
        self._index = Index(self.path / INDEX, dim)
        self._index.catch_up(self._store)
        self._index.save()
        self._store.sweep()
        return self.version

    def search(self, queries: np.ndarray, k: int = 10, **conditions: Any) -> list[list[Hit]]:
        """Return the k entries with the highest cosine to each query, best first.

        Exact with a flat index (the default up to `kinds.FLAT_UP_TO` entries) and with conditions.

        Args:
            queries: [Q, D], or [D] for one query.
            k: entries per query, at least 1; fewer are returned if fewer match.
            conditions: fields of `Filter`.

        Returns:
            One list per query.

        Raises:
            UserError: a query of another dimension, not finite or zero; k < 1; an invalid filter.
        """
        return search_embedding(self._store, self._index, queries, k, Filter(**conditions))

    def search_affect(self, affect: Affect, k: int = 10, **conditions: Any) -> list[AffectHit]:
        """Return the k entries nearest in valence and arousal, best first.

        An entry's requested affect is compared, or else the affect its judge predicted; an entry
        with neither is never found. Raises `UserError` as `search`.
        """
        return search_affect(self.entries(**conditions), affect, k)

    def search_text(
        self, words: str, k: int = 10, *, encode: Encode | None = None, **conditions: Any
    ) -> list[TextHit]:
        """Return the k entries whose prompts match words best, best first.

        A prompt needs one of the words, in any inflection ("night" finds "nights"); rare words
        weigh more, stop words ("a", "of") nothing. Anything but letters and digits separates words.
        With `encode`, prompts near in meaning follow those that share words, if these are fewer
        than k: each different prompt is encoded. Raises `UserError` when there is no word, and as
        `search`.
        """
        return search_text(self._store, words, k, Filter(**conditions), encode)

    def nearest_cosine(self, queries: np.ndarray) -> np.ndarray:
        """Return each query's highest cosine to any entry, float [Q]; -1 for an empty bank."""
        rows = check_queries(queries, self.dim)
        cosines, _ = self._index.search(rows, 1)
        return cosines[:, 0] if cosines.size else np.full(len(rows), -1.0, np.float32)

    def entries(self, **conditions: Any) -> list[Entry]:
        """Return the live entries in the order of their ids.

        `conditions` are fields of `Filter`, as in `entries(source="real", min_step=100)`. Raises
        `UserError` for an invalid filter.
        """
        return self._store.entries(Filter(**conditions))

    def entry(self, number: int) -> Entry:
        """Return a live entry by its id. Raises `UserError` when there is none."""
        found = self._store.entries_of([number])
        if number not in found:
            raise UserError("no such entry in the memory bank", got=f"id {number}")
        return found[number]

    def embeddings(self, ids: Sequence[int]) -> np.ndarray:
        """Return the vectors of entries, not normalised, float32 [N, D].

        Raises `UserError` for an id that is not live.
        """
        found = self._store.embeddings_of(ids)
        missing = [number for number in ids if number not in found]
        if missing:
            raise UserError("no such entry in the memory bank", got=f"id {missing[0]}")
        return np.array([found[number] for number in ids], np.float32).reshape(-1, self.dim)

    def refusals(self) -> list[Refusal]:
        """Return all refused candidates with their reasons, oldest first."""
        return self._store.refusals()

    def image_path(self, entry: Entry) -> Path:
        """Return the image file of an entry.

        Raises `UserError` when a link, a pipe or the like is in its place; a missing file is left
        to who opens it.
        """
        return image_file(self.path, entry.sha256, entry.suffix)

    def image_bytes(self, entry: Entry) -> bytes:
        """Return the image file of an entry, unchecked. Raises `UserError` if it cannot be read."""
        name = image_name(entry.sha256, entry.suffix)
        try:
            return read_file(self.path, name)
        except OSError as error:
            raise UserError(
                f"the image of entry {entry.id} cannot be read: {self.path / name}",
                got=error.strerror,
                fix="see `emosym bank verify`; adding the original file again restores it",
            ) from error

    @contextmanager
    def moment(self, version: int | str | None = None) -> Iterator[None]:
        """Move as `reload`, and read that version during the block, whatever the writer does.

        Raises as `reload`.
        """
        with self._store.moment():
            self.reload(version)
            yield

    def stats(self) -> dict[str, Any]:
        """Return the numbers of the bank, ready for JSON.

        `oldest` is the oldest version that can be reached; `size` = `real` + `synthetic` live
        entries; `admitted` = live synthetic entries; `refused` = refusals up to this version;
        `by_emotion` counts live entries by label in the order of Mikels' eight,
        `by_emotion_synthetic` the synthetic ones.
        """
        return statistics(self._store) | {"index": self._index.kind}

    def verify(self, show: Show = _quietly) -> list[str]:
        """Check every record, image, vector, tag and index entry; return the problems found.

        `show` is called with the number of entries done and the total. A writer also reports files
        without an entry; to a reader they could belong to a batch that is about to commit.
        """
        try:
            found = problems(self._store, show)
        except UserError as error:
            return [str(error)]
        return found or self._index.problems(self._store)

    def _record(self, decisions: Sequence[Decision], evict: Sequence[int], what: str) -> Recorded:
        final = self._store.record(decisions, evict, what=what)
        self._index.catch_up(self._store)
        return Recorded(
            self.version,
            [one for one in final if one.admitted],
            [one for one in final if not one.admitted],
        )


def _resolved(path: Path | str) -> Path:
    return Path(os.path.realpath(path))  # `Path.resolve` raises on circular links
