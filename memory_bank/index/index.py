"""Nearest neighbours by cosine: a FAISS index, a cache that can be rebuilt from the store."""

from __future__ import annotations

import logging
import os
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import xxhash

from emosym.errors import UserError
from emosym.files import remove_leftovers, replacing
from memory_bank.confined import open_file
from memory_bank.index.kinds import Flat, IndexKind, kind_for, read
from memory_bank.store.database import AUTO, State
from memory_bank.store.store import Store

log = logging.getLogger(__name__)
_STAMP = struct.Struct("<8sQQQ16s")
"""Trailer of the file, after FAISS's bytes and the removed ids (int64): magic, generation, version,
number of removed ids, origin. The XXH3-128 digest of everything before it follows."""
_MAGIC = b"EMOBANK3"
_DIGEST = 16
_ROWS = 4096
"""Vectors compared at once in an exact search."""


class Index:
    """Search by inner product over L2-normalised vectors, under the ids of the store.

    The file at `path` is a cache: `catch_up` applies the changes of the store that it lacks, or
    rebuilds it. `mapped` memory-maps the file if its kind allows it. A writer replaces the file, so
    it must not map it.
    """

    def __init__(self, path: Path, dim: int, *, mapped: bool = False) -> None:
        if sys.platform == "darwin" and "torch" in sys.modules:
            # Two OpenMP runtimes in one process crash on macOS.
            faiss.omp_set_num_threads(1)
        self._path, self._dim = path, dim
        self._kind: IndexKind
        self._saved: State | None = None
        if (loaded := _load(path, dim, mapped)) is not None:
            self._kind, self.state, self._origin = loaded
            self._saved = self.state
        else:  # an origin that no store has: the first `catch_up` builds the index
            self._kind = Flat.empty(dim, 0, lambda count: np.empty((0, dim), np.float32))
            self.state, self._origin = State(0, 0), b""

    def __len__(self) -> int:
        return len(self._kind)

    @property
    def kind(self) -> str:
        """Name of its present kind, a key of `kinds.KINDS`."""
        return self._kind.NAME

    @property
    def ids(self) -> np.ndarray:
        """Ids in the index, int64 [N], in no particular order."""
        return self._kind.ids

    def catch_up(self, store: Store) -> None:
        """Update to the live vectors of the store's state, in the kind of its index setting."""
        if (
            self.state.generation != store.state.generation
            or self.state.version > store.state.version
            or store.index not in (AUTO, self._kind.NAME)
            or self._origin != _origin(store, self.state.version)
        ):
            self.build(store)
            return
        removed = store.removed_since(self.state.version)
        if removed.size:
            self._kind.remove(removed)
        for ids, vectors in store.added_since(self.state.version):
            self._kind.add(normalised(vectors), ids)
        self.state, self._origin = store.state, _origin(store, store.state.version)
        too_large = (
            store.index == AUTO
            and self._kind.NAME == Flat.NAME
            and kind_for(AUTO, len(self)) is not Flat
        )
        if self._kind.outgrown() or too_large:
            self.build(store)

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (cosines [Q, k], ids [Q, k]), best first; min(k, N) columns.

        `queries` is [Q, D]. `among` restricts the search to these ids and makes it exact in every
        kind: an approximate search might visit none of them.
        """
        rows = normalised(queries)
        k = min(k, len(self) if among is None else among.size)
        if among is not None:
            return self._exact(rows, k, among)
        if k == 0:
            return np.empty((len(rows), 0), np.float32), np.empty((len(rows), 0), np.int64)
        cosines, ids = self._kind.search(rows, k)
        short = (ids == -1).any(axis=1)
        if short.any():
            cosines[short], ids[short] = self._exact(rows[short], k, self.ids)
        return cosines, ids

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the normalised vectors of ids, float32 [N, D]."""
        return self._kind.vectors(ids)

    def problems(self, store: Store) -> list[str]:
        """Return where the index differs from the store's live vectors; empty if nowhere."""
        live = store.ids()
        if not np.array_equal(np.sort(self.ids), live):
            return ["index: its ids are not those of the store"]
        found: list[str] = []
        for start in range(0, live.size, _ROWS):
            ids = live[start : start + _ROWS]
            stored = store.embeddings_of(ids.tolist())
            expected = normalised(np.stack([stored[number] for number in ids.tolist()]))
            try:
                wrong = ~(np.abs(self.vectors(ids) - expected).max(axis=1) <= 1e-6)  # NaN is wrong
            except RuntimeError:
                return ["index: it lacks vectors of its entries"]
            found += [f"index: vector of entry {number} differs" for number in ids[wrong]]
        return found

    def _exact(self, rows: np.ndarray, k: int, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return, as `search`, the best of these ids by comparing with all of them."""
        cosines = np.empty((len(rows), 0), np.float32)
        ids = np.empty((len(rows), 0), np.int64)
        for start in range(0, among.size if k else 0, _ROWS):
            chunk = among[start : start + _ROWS]
            better, places = faiss.knn(
                rows, self.vectors(chunk), min(k, chunk.size), faiss.METRIC_INNER_PRODUCT
            )
            cosines = np.concatenate([cosines, better], axis=1)
            ids = np.concatenate([ids, chunk[places]], axis=1)
            best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            cosines = np.take_along_axis(cosines, best, 1)
            ids = np.take_along_axis(ids, best, 1)
        return cosines, ids

    def build(self, store: Store) -> None:
        """Build the index anew from the live vectors of the store's state."""
        live = store.ids()

        def sample(count: int) -> np.ndarray:
            # A fixed seed: a rebuilt index gives the same results as the lost one.
            drawn = np.random.default_rng(0).permutation(live)[:count]
            found = store.embeddings_of(drawn.tolist())
            return normalised(np.stack([found[number] for number in drawn.tolist()]))

        kind = kind_for(store.index, live.size)
        log.info("building the %s index of %d vectors", kind.NAME, live.size)
        self._kind = kind.empty(self._dim, live.size, sample)
        for ids, vectors in store.added_since(0):
            self._kind.add(normalised(vectors), ids)
        self.state, self._saved = store.state, None
        self._origin = _origin(store, store.state.version)
        if store.writable and kind is not Flat:
            self.save()  # building took long: do not lose it in a crash

    def save(self) -> None:
        """Write the index atomically; a failure is logged only, as the index is a cache."""
        if self._saved == self.state:
            return
        try:
            remove_leftovers(self._path)
            with replacing(self._path) as temporary, temporary.open("xb") as stream:
                self._write(stream)
            self._saved = self.state
        except (OSError, RuntimeError) as error:
            log.warning("could not save %s (%s); it is rebuilt when needed", self._path, error)

    def _write(self, stream: BinaryIO) -> None:
        digest = xxhash.xxh3_128()

        def write(data: bytes | memoryview) -> None:
            digest.update(data)
            stream.write(data)

        # Through Python, which reports what FAISS itself may not: that the disk is full at the end.
        faiss.write_index(self._kind.faiss, _Writer(write))
        removed = self._kind.removed
        write(removed.tobytes())
        state = self.state
        write(_STAMP.pack(_MAGIC, state.generation, state.version, removed.size, self._origin))
        stream.write(digest.digest())


# FAISS's type stub lacks this name.
_Writer: Any = faiss.PyCallbackIOWriter  # type: ignore[attr-defined]  # see above


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return rows of unit length, float32 [N, D]; norms in float64, so that none overflows."""
    wide = np.asarray(vectors, np.float64)
    return np.ascontiguousarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float32)


def _origin(store: Store, version: int) -> bytes:
    """Return 16 bytes that identify the store's history up to a version.

    The version number alone is not enough: the index of another bank may have the same.
    """
    return xxhash.xxh3_128_digest(repr(store.last_change(version)).encode())


def _load(path: Path, dim: int, mapped: bool) -> tuple[IndexKind, State, bytes] | None:
    """Return the saved index, its state and its origin; None if it is missing or damaged.

    Every byte is checked by its digest before FAISS reads the file.
    """
    try:
        descriptor = open_file(path.parent, path.name)
    except FileNotFoundError:
        return None
    except (OSError, UserError) as error:
        log.warning("%s cannot be read (%s); rebuilding it from the store", path, error)
        return None
    try:
        with os.fdopen(descriptor, "rb") as file:
            data = np.memmap(file, np.uint8, mode="r")
            end = data.size - _DIGEST
            if xxhash.xxh3_128_digest(data[:end].data) != data[end:].tobytes():
                raise ValueError("checksum differs")
            end -= _STAMP.size
            stamp = data[end : end + _STAMP.size].tobytes()
            magic, generation, version, removed, origin = _STAMP.unpack(stamp)
            if magic != _MAGIC:
                raise ValueError("not written by this format")
            file.seek(0)
            # The file that was checked, even if a writer has replaced it meanwhile.
            kind = read(Path(f"/dev/fd/{descriptor}"), mapped=mapped)
        if kind.faiss.d != dim:
            raise ValueError(f"holds vectors of dimension {kind.faiss.d}")
        if removed:
            kind.remove(np.frombuffer(data[end - 8 * removed : end].tobytes(), np.int64))
    except (OSError, ValueError, RuntimeError, MemoryError, struct.error) as error:
        log.warning("%s is damaged (%s); rebuilding it from the store", path, error)
        return None
    return kind, State(generation, version), origin
