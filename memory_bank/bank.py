"""The Online Emotional Memory Bank: emotional images, found by what they evoke, never lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from emosym.affect import PUBLIC, Affect
from emosym.errors import UserError, unknown
from emosym.taxonomy import MIKELS8, mikels
from memory_bank.entry import SOURCES, Candidate, Decision, Entry, Refusal, Source
from memory_bank.images import image_path
from memory_bank.index import Index, normalised
from memory_bank.kinds import check_setting
from memory_bank.store import AUTO, Store, check_vectors

BY_HAND = "added by hand"


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
        self._index = Index(store.path / "index.faiss", store.dim)
        self._index.catch_up(store)

    @classmethod
    def create(cls, path: Path | str, dim: int, model_hash: str, *, index: str = AUTO) -> Self:
        """Make an empty bank for vectors [dim] of the embedder `model_hash`; open it to write.

        `index` is the kind of index: "auto" (by size), "flat" (exact), "ivf" or "hnsw".
        Raises `UserError` when the folder is not empty or cannot be written, and for another kind.
        """
        Store.create(Path(path).resolve(), dim, model_hash, check_setting(index))
        return cls.open(path, "a")

    @classmethod
    def open(
        cls,
        path: Path | str,
        mode: Literal["r", "a"] = "r",
        *,
        model_hash: str | None = None,
        index: str | None = None,
    ) -> Self:
        """Open a bank to read ("r") or to read and write ("a").

        A writer may give the bank another kind of `index` (see `create`), which stays.
        Raises `UserError` when there is no bank, its format is newer, it has another writer
        already, its vectors were made by another embedder than `model_hash`, or a reader asks for
        another kind of index.
        """
        if mode not in ("r", "a"):
            raise unknown("mode", mode, ("r", "a"))
        store = Store(Path(path).resolve(), writable=mode == "a")
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

    def reload(self, version: int | None = None) -> int:
        """Move to the newest version, or to a given one, and return it.

        A writer is always at the newest version. Raises `UserError` for an unknown version.
        """
        self._store.refresh(version)
        self._index.catch_up(self._store)
        return self.version

    def add(self, candidates: Iterable[Candidate], *, reason: str = BY_HAND) -> Recorded:
        """Keep images without asking the gates, durably, as the next version.

        The whole batch or nothing; an image the bank holds already is refused, not an error.
        Raises `UserError` for a vector or image that cannot be kept, or a full disk.
        """
        return self.record(
            [Decision(candidate=one, admitted=True, reason=reason) for one in candidates]
        )

    def record(self, decisions: Sequence[Decision], *, evict: Sequence[int] = ()) -> Recorded:
        """Keep the admitted candidates and remember the refused, as the next version.

        Entries `evict` leave in the same version. When it returns, the batch survives a crash.
        Raises as `add` and `remove`.
        """
        taken = self._store.record(decisions, evict)
        self._index.catch_up(self._store)
        return Recorded(
            self.version,
            [one for one in taken if one.admitted],
            [one for one in taken if not one.admitted],
        )

    def remove(self, ids: Sequence[int]) -> int:
        """Take entries out as the next version and return it; a rollback can bring them back.

        Raises `UserError`, with the bank unchanged, for an id that is not live.
        """
        self._store.remove(ids)
        self._index.catch_up(self._store)
        return self.version

    def rollback(self, version: int) -> int:
        """Restore exactly what the bank held at a version; everything newer is forgotten.

        Real images that came later go too: the set is the set of that version. Raises
        `UserError` for an unknown version.
        """
        self._store.rollback(version)
        self._index.catch_up(self._store)
        return self.version

    def search(
        self,
        queries: np.ndarray,
        k: int = 10,
        *,
        emotion: str | None = None,
        source: Source | None = None,
    ) -> list[list[Hit]]:
        """Return the k nearest entries of each query by cosine, best first.

        Exact with a flat index (the default up to `kinds.EXACT_UP_TO` entries) and with a filter.

        `queries` is [Q, D], or [D] for one query; the answer has one list a query, shorter
        than k when fewer entries match. Raises `UserError` for a query of another dimension,
        not finite or zero, for k < 1 and for an unknown filter.
        """
        rows = self._check_queries(queries)
        if k < 1:
            raise UserError("the number of neighbours", got=k, expected="at least 1")
        label, source = _filters(emotion, source)
        among = None
        if label is not None or source is not None:
            among = self._store.ids(source=source, label=label)
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

    def search_affect(
        self,
        affect: Affect,
        k: int = 10,
        *,
        emotion: str | None = None,
        source: Source | None = None,
    ) -> list[AffectHit]:
        """Return the k entries whose valence and arousal are nearest, best first.

        An entry counts with the affect it should evoke, or else with what its judge saw; one with
        neither is never found. Raises `UserError` as `search`.
        """
        if k < 1:
            raise UserError("the number of neighbours", got=k, expected="at least 1")
        wanted = affect.to(PUBLIC)
        hits = []
        for entry in self.entries(source=source, emotion=emotion):
            known = entry.valence is not None
            valence = entry.valence if known else entry.predicted_valence
            arousal = entry.arousal if known else entry.predicted_arousal
            if valence is not None and arousal is not None:
                distance = abs(valence - wanted.valence) + abs(arousal - wanted.arousal)
                hits.append(AffectHit(entry, distance))
        return sorted(hits, key=lambda hit: (hit.distance, hit.entry.id))[:k]

    def nearest_cosine(self, queries: np.ndarray) -> np.ndarray:
        """Return each query's highest cosine to any entry, float [Q]; -1 for an empty bank."""
        rows = self._check_queries(queries)
        cosines, _ = self._index.search(rows, 1)
        return cosines[:, 0] if cosines.size else np.full(len(rows), -1.0, np.float32)

    def entries(self, *, source: Source | None = None, emotion: str | None = None) -> list[Entry]:
        """Return the live entries in the order of their ids. Raises `UserError` as `search`."""
        label, source = _filters(emotion, source)
        return self._store.entries(source=source, label=label)

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

        `size` = `real` + `synthetic` live entries; `admitted` = synthetic entries live at this
        version; `refused` = refusals recorded up to it; `by_emotion` counts live entries by
        label in the order of Mikels' eight, `by_emotion_synthetic` the synthetic ones.
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

    def verify(self) -> list[str]:
        """Check every record, image, vector and index entry; return the problems found."""
        try:
            problems = self._store.problems()
        except UserError as error:
            return [str(error)]
        if problems:
            return problems
        live = self._store.ids()
        if not np.array_equal(np.sort(self._index.ids), live):
            return ["index: its ids are not those of the store"]
        for start in range(0, live.size, 4096):
            ids = live[start : start + 4096]
            expected = normalised(self.embeddings(ids.tolist()))
            wrong = np.abs(self._index.vectors(ids) - expected).max(axis=1) > 1e-6
            problems += [f"index: vector of entry {number} differs" for number in ids[wrong]]
        return problems

    def _check_queries(self, queries: np.ndarray) -> np.ndarray:
        return check_vectors(queries, self.dim).reshape(-1, self.dim)


def _filters(emotion: str | None, source: str | None) -> tuple[str | None, Source | None]:
    if source is not None and source not in SOURCES:
        raise unknown("source", source, SOURCES)
    return (None if emotion is None else mikels(emotion)), source
