"""The Online Emotional Memory Bank: emotional images, found by what they evoke, never lost."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from emosym.affect.scales import PUBLIC, Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError, unknown
from memory_bank.index.index import Index, normalised
from memory_bank.index.kinds import check_setting
from memory_bank.index.rebuild import Embed, rebuild
from memory_bank.store import compaction, history
from memory_bank.store.compaction import Forgotten
from memory_bank.store.database import AUTO
from memory_bank.store.entry import Candidate, Decision, Entry, Refusal
from memory_bank.store.filter import Filter
from memory_bank.store.history import Diff, Event
from memory_bank.store.images import image_path
from memory_bank.store.inspection import Show, problems
from memory_bank.store.store import Store
from memory_bank.store.vectors import check_vectors

INDEX = "index.faiss"
BY_HAND = "added by hand"


def _quietly(done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry found by a search."""

    entry: Entry
    cosine: float
    """Similarity to the query in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class AffectHit:
    """An entry found by what it evokes."""

    entry: Entry
    distance: float
    """|ΔV| + |ΔA| in units of `affect.PUBLIC`."""


@dataclass(frozen=True, slots=True)
class TextHit:
    """An entry found by the words of its prompt."""

    entry: Entry
    match: float
    """BM25: higher is better; comparable within one search only."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch."""

    version: int
    """The bank's version after the batch."""
    admitted: list[Decision]
    refused: list[Decision]
    """Refused by the gates, or because the image is in the bank already."""


class MemoryBank:
    """A folder of images, records and vectors with versions; one writer, any number of readers.

    A reader sees one version until `reload`, whatever the writer does meanwhile. Use `create` or
    `open`, and close it (or use `with`).

    Ref: EmoSym (10.1145/3746027.3754549), Online Emotional Memory Bank.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        check_setting(store.index)
        self._index = Index(store.path / INDEX, store.dim, mapped=not store.writable)
        self._index.catch_up(store)

    @classmethod
    def create(cls, path: Path | str, dim: int, model_hash: str, *, index: str = AUTO) -> Self:
        """Make an empty bank for vectors [dim] of the embedder `model_hash`; open it to write.

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
        """Open a bank to read ("r") or to read and write ("a").

        A writer brings an older format up to date, lets another writer `wait` seconds to end, and
        may give the bank another kind of `index` (see `create`), which stays.
        Raises `UserError` when there is no bank, its format is newer (or older, for a reader), it
        still has another writer, its vectors were made by another embedder than `model_hash`, or a
        reader asks for another kind of index.
        """
        if mode not in ("r", "a"):
            raise unknown("mode", mode, ("r", "a"))
        store = Store(_resolved(path), writable=mode == "a", wait=wait)
        try:
            if model_hash is not None and model_hash != store.model_hash:
                raise UserError(
                    f"the vectors of the memory bank {path} were made by another model",
                    got=f"model {model_hash}",
                    expected=f"model {store.model_hash}",
                    fix="use that model, or a new bank",
                )
            if index is not None and check_setting(index) != store.index:
                store.keep_index(index)
            return cls(store)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Save the index (writers) and let the next writer in."""
        if self._store.writable:
            self._index.save()
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
        """The embedder that made its vectors."""
        return self._store.model_hash

    @property
    def version(self) -> int:
        """The version this object sees; 0 is the empty bank."""
        return self._store.state.version

    def reload(self, version: int | str | None = None) -> int:
        """Move to the newest version, or to a given one (or its tag), and return it.

        A writer is always at the newest version. Raises `UserError` for an unknown version, and
        when the bank was rebuilt for another embedder meanwhile.
        """
        if version is not None:
            version = history.version_of(self._store, version)
        self._store.refresh(version)
        self._index.catch_up(self._store)
        return self.version

    def add(self, candidates: Iterable[Candidate], *, reason: str = BY_HAND) -> Recorded:
        """Keep images without asking the gates, durably, as the next version.

        The whole batch or nothing; an image the bank holds already is refused, not an error.
        Raises `UserError` for a vector or image that cannot be kept, or a full disk.
        """
        return self._record(
            [Decision(candidate=one, admitted=True, reason=reason) for one in candidates], (), "add"
        )

    def record(self, decisions: Sequence[Decision], *, evict: Sequence[int] = ()) -> Recorded:
        """Keep the admitted candidates and remember the refused, as the next version.

        Entries `evict` leave in the same version. When it returns, the batch survives a crash.
        Raises as `add` and `remove`.
        """
        return self._record(decisions, evict, "admit")

    def remove(self, ids: Sequence[int]) -> int:
        """Take entries out as the next version and return it; a rollback can bring them back.

        Raises `UserError`, with the bank unchanged, for an id that is not live.
        """
        self._store.remove(ids)
        self._index.catch_up(self._store)
        return self.version

    def load(self, batches: Iterable[Sequence[Decision]]) -> tuple[int, int]:
        """Keep batches as one version, one in memory at a time; return (admitted, refused).

        All or nothing, as `record`. Raises as `add`, and what `batches` raises.
        """
        counts = self._store.record_stream(batches, what="import")
        self._index.catch_up(self._store)
        return counts

    def rollback(self, version: int | str) -> int:
        """Restore exactly what the bank held at a version, or at a tag, and return the version.

        Everything newer is forgotten, its tags too. Real images that came later go too: the set
        is the set of that version. Raises `UserError` for a version that is unknown or forgotten.
        """
        self._store.rollback(history.version_of(self._store, version))
        self._index.catch_up(self._store)
        self._store.sweep()
        return self.version

    def version_before(self, step: int) -> int:
        """Return the last version before anything of training step `step` or later came.

        Raises `UserError` when that version is forgotten.
        """
        return history.version_before(self._store, step)

    def tags(self) -> dict[str, int]:
        """Return the tags and their versions, oldest version first."""
        return history.tags(self._store)

    def tag(self, name: str, version: int | str | None = None) -> int:
        """Name a version (this one) and return it; no new version is made.

        Raises `UserError` for a bad name, one in use, and a version that does not exist.
        """
        version = self.version if version is None else history.version_of(self._store, version)
        history.tag(self._store, name, version)
        return version

    def untag(self, name: str) -> None:
        """Delete a tag; its version stays. Raises `UserError` for an unknown one."""
        history.untag(self._store, name)

    def events(self) -> list[Event]:
        """Return all that ever changed the bank, oldest first, also what was rolled back."""
        return history.events(self._store)

    def diff(self, old: int | str, new: int | str) -> Diff:
        """Return the entries that came and left between two versions or tags.

        Raises `UserError` for a version that does not exist.
        """
        old, new = (history.version_of(self._store, one) for one in (old, new))
        return history.diff(self._store, old, new)

    def compact(self, oldest: int | str | None = None, *, refusals: bool = False) -> Forgotten:
        """Forget for good what no version from `oldest` on needs, and give the space back.

        Without `oldest`, tagged versions and the newest one stay. Versions keep their numbers, and
        ids are never given again. `refusals` forgets every refused candidate too.

        Raises `UserError` when there is no such version, and when the disk refuses.
        """
        if oldest is not None:
            oldest = history.version_of(self._store, oldest)
        forgotten = compaction.forget(self._store, oldest, refusals=refusals)
        self._index.catch_up(self._store)
        self._index.save()  # the old one holds vectors of what is gone
        self._store.sweep()
        compaction.shrink(self._store)
        return forgotten

    def rebuild(self, embed: Embed, dim: int, model_hash: str, show: Show = _quietly) -> int:
        """Give every live entry the vector [dim] of another embedder; return the new version.

        `embed` takes image files and returns vectors [N, dim]. At any moment the bank is the old
        one or the new one. History starts anew: older versions and tags are forgotten.

        Raises `UserError`, with the bank unchanged, for an image or a vector that is not usable.
        """
        rebuild(self._store, embed, dim, model_hash, show)
        (self.path / INDEX).unlink(missing_ok=True)
        self._index = Index(self.path / INDEX, dim)
        self._index.catch_up(self._store)
        self._index.save()
        self._store.sweep()
        return self.version

    def search(self, queries: np.ndarray, k: int = 10, **wanted: object) -> list[list[Hit]]:
        """Return the k nearest entries of each query by cosine, best first.

        Exact with a flat index (the default up to `kinds.FLAT_UP_TO` entries) and with a filter.


        `queries` is [Q, D], or [D] for one query; the answer has one list a query, shorter
        than k when fewer entries match. `wanted` are fields of `Filter`. Raises `UserError` for a
        query of another dimension, not finite or zero, for k < 1 and for an unknown filter.
        """
        rows = self._check_queries(queries)
        _check_k(k)
        only = Filter(**wanted)
        among = self._store.ids(only) if only else None
        cosines, ids = self._index.search(rows, k, among)
        found = self._store.entries_of(np.unique(ids).tolist())
        return [
            [
                Hit(found[number], cosine)
                for cosine, number in zip(*pair, strict=True)
                if number != -1
            ]
            for pair in zip(cosines.tolist(), ids.tolist(), strict=True)
        ]

    def search_affect(self, affect: Affect, k: int = 10, **wanted: object) -> list[AffectHit]:
        """Return the k entries whose valence and arousal are nearest, best first.

        An entry counts with the affect it should evoke, or else with what its judge saw; one with
        neither is never found. Raises `UserError` as `search`.
        """
        _check_k(k)
        asked = affect.to(PUBLIC)
        hits = []
        for entry in self.entries(**wanted):
            known = entry.valence is not None
            valence = entry.valence if known else entry.predicted_valence
            arousal = entry.arousal if known else entry.predicted_arousal
            if valence is not None and arousal is not None:
                distance = abs(valence - asked.valence) + abs(arousal - asked.arousal)
                hits.append(AffectHit(entry, distance))
        return sorted(hits, key=lambda hit: (hit.distance, hit.entry.id))[:k]

    def search_text(self, words: str, k: int = 10, **wanted: object) -> list[TextHit]:
        """Return the k entries whose prompts match words best, best first.

        Any of the words counts, the rare ones most, in any form ("night" finds "nights"); what is
        no letter or digit separates them. Raises `UserError` for no word, and as `search`.
        """
        _check_k(k)
        # Each in quotes: to FTS5 they are words then, never operators.
        terms = [f'"{word}"' for word in re.findall(r"\w+", words)]
        if not terms:
            raise UserError("a search without words", got=repr(words), expected="words of a prompt")
        found = self._store.matches(" OR ".join(terms), k, Filter(**wanted))
        return [TextHit(entry, -score) for entry, score in found]

    def nearest_cosine(self, queries: np.ndarray) -> np.ndarray:
        """Return each query's highest cosine to any entry, float [Q]; -1 for an empty bank."""
        rows = self._check_queries(queries)
        cosines, _ = self._index.search(rows, 1)
        return cosines[:, 0] if cosines.size else np.full(len(rows), -1.0, np.float32)

    def entries(self, **wanted: object) -> list[Entry]:
        """Return the live entries in the order of their ids.

        `wanted` are fields of `Filter`, as in `entries(source="real", min_step=100)`. Raises
        `UserError` for a filter that makes no sense.
        """
        return self._store.entries(Filter(**wanted))

    def entry(self, number: int) -> Entry:
        """Return a live entry by its id. Raises `UserError` when there is none."""
        found = self._store.entries_of([number])
        if number not in found:
            raise UserError("no such entry in the memory bank", got=f"id {number}")
        return found[number]

    def embeddings(self, ids: Sequence[int]) -> np.ndarray:
        """Return the vectors of entries as they were given, float32 [N, D].

        Raises `UserError` for an id that is not live.
        """
        found = self._store.embeddings_of(ids)
        missing = [number for number in ids if number not in found]
        if missing:
            raise UserError("no such entry in the memory bank", got=f"id {missing[0]}")
        return np.array([found[number] for number in ids], np.float32).reshape(-1, self.dim)

    def refusals(self) -> list[Refusal]:
        """Return every refused candidate with its reason, oldest first."""
        return self._store.refusals()

    def image_path(self, entry: Entry) -> Path:
        """Return the image file of an entry."""
        return image_path(self._store.images, entry.sha256, entry.suffix)

    def stats(self) -> dict[str, object]:
        """Return the bank in numbers, ready for JSON.

        `oldest` is the oldest version that can be reached; `size` = `real` + `synthetic` live
        entries; `admitted` = synthetic entries live at this version; `refused` = refusals recorded
        up to it; `by_emotion` counts live entries by label in the order of Mikels' eight,
        `by_emotion_synthetic` the synthetic ones.
        """
        counts, refused = self._store.counts()

        def total(source: str | None, label: str | None = None) -> int:
            return sum(
                count
                for (from_, of), count in counts.items()
                if (source is None or from_ == source) and (label is None or of == label)
            )

        return {
            "version": self.version,
            "oldest": self._store.oldest,
            "size": total(None),
            "real": total("real"),
            "synthetic": total("synthetic"),
            "admitted": total("synthetic"),
            "refused": refused,
            "by_emotion": {label: total(None, label) for label in MIKELS8},
            "by_emotion_synthetic": {label: total("synthetic", label) for label in MIKELS8},
            "dim": self.dim,
            "model_hash": self.model_hash,
            "index": self._index.kind,
        }

    def verify(self, show: Show = _quietly) -> list[str]:
        """Check every record, image, vector, tag and index entry; return the problems found.

        `show` is told how many entries are done, and of how many. A writer also looks for files
        of no entry; to a reader those may be of a batch that is about to commit.
        """
        try:
            found = problems(self._store, show)
        except UserError as error:
            return [str(error)]
        if found:
            return found
        live = self._store.ids()
        if not np.array_equal(np.sort(self._index.ids), live):
            return ["index: its ids are not those of the store"]
        for start in range(0, live.size, 4096):
            ids = live[start : start + 4096]
            expected = normalised(self.embeddings(ids.tolist()))
            wrong = np.abs(self._index.vectors(ids) - expected).max(axis=1) > 1e-6
            found += [f"index: vector of entry {number} differs" for number in ids[wrong]]
        return found

    def _record(self, decisions: Sequence[Decision], evict: Sequence[int], what: str) -> Recorded:
        taken = self._store.record(decisions, evict, what=what)
        self._index.catch_up(self._store)
        return Recorded(
            self.version,
            [one for one in taken if one.admitted],
            [one for one in taken if not one.admitted],
        )

    def _check_queries(self, queries: np.ndarray) -> np.ndarray:
        return check_vectors(queries, self.dim).reshape(-1, self.dim)


def _resolved(path: Path | str) -> Path:
    return Path(os.path.realpath(path))  # `Path.resolve` fails on links that go in a circle


def _check_k(k: int) -> None:
    if k < 1:
        raise UserError("the number of neighbours", got=k, expected="at least 1")
