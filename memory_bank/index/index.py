"""Nearest neighbours by cosine: a FAISS index that can always be rebuilt from the store."""

from __future__ import annotations

import logging
import struct
import sys
from pathlib import Path

import faiss
import numpy as np
import xxhash

from emosym.files import remove_leftovers, replacing
from memory_bank.index.kinds import Flat, kind_for, read
from memory_bank.store.database import AUTO, State
from memory_bank.store.store import Store

log = logging.getLogger(__name__)
_STAMP = struct.Struct("<8sQQQ16s")
"""After FAISS's own bytes and the removed ids (int64): magic, generation, version, number of
removed ids, origin; then the XXH3-128 of all that precedes."""
_MAGIC = b"EMOBANK3"
_DIGEST = 16
_ROWS = 4096
"""Vectors compared at once where a search must be exact."""


class Index:
    """Inner product over L2-normalised vectors under the store's own ids, in the store's kind.

    A cache: `catch_up` replays from the store what it has not seen, whatever was on the disk.
    One that is `mapped` reads its vectors where they lie, as far as its kind can; who writes, and
    replaces the file, holds them in memory.
    """

    def __init__(self, path: Path, dim: int, *, mapped: bool = False) -> None:
        if sys.platform == "darwin" and "torch" in sys.modules:
            # Two OpenMP runtimes in one process crash there.
            faiss.omp_set_num_threads(1)
        self._path, self._dim = path, dim
        self._kind, self.state, self._origin = _load(path, dim, mapped) or (None, State(0, 0), b"")
        self._saved = self.state if self._kind is not None else None

    def __len__(self) -> int:
        return len(self._kind)

    @property
    def kind(self) -> str:
        """Name of the kind it is now, of `kinds.KINDS`."""
        return self._kind.NAME

    @property
    def ids(self) -> np.ndarray:
        """Ids in the index, int64 [N], in no particular order."""
        return self._kind.ids

    def catch_up(self, store: Store) -> None:
        """Hold exactly the live vectors of the store's state, in the kind of its setting."""
        if (
            self._kind is None
            or self.state.generation != store.state.generation
            or self.state.version > store.state.version
            or store.index not in (AUTO, self._kind.NAME)
            or self._origin != _origin(store, self.state.version)
        ):
            self._build(store)
            return
        removed = store.removed_since(self.state.version)
        if removed.size:
            self._kind.remove(removed)
        for ids, vectors in store.added_since(self.state.version):
            self._kind.add(normalised(vectors), ids)
        self.state, self._origin = store.state, _origin(store, store.state.version)
        grown = store.index == AUTO and self._kind.NAME == Flat.NAME
        if self._kind.worn() or (grown and kind_for(AUTO, len(self)) is not Flat):
            self._build(store)

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (cosines [Q, k], ids [Q, k]), best first; min(k, N) columns.

        `queries` is [Q, D]. `among` restricts the search to these ids, and makes it exact in
        every kind: what an approximate one visits may hold none of them.
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

    def _exact(self, rows: np.ndarray, k: int, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return as `search` the best of these ids, by comparing them all."""
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

    def _build(self, store: Store) -> None:
        live = store.ids()

        def sample(count: int) -> np.ndarray:
            # The same ids every time: a rebuilt index answers as the lost one did.
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
            self.save()  # what took so long is not to be lost in a crash

    def save(self) -> None:
        """Write the index beside the store, whole or not at all; a cache may fail to be saved."""
        if self._saved == self.state:
            return
        try:
            remove_leftovers(self._path)
            with replacing(self._path) as temporary:
                faiss.write_index(self._kind.faiss, str(temporary))
                removed = self._kind.removed
                stamp = removed.tobytes() + _STAMP.pack(
                    _MAGIC, self.state.generation, self.state.version, removed.size, self._origin
                )
                digest = xxhash.xxh3_128(np.memmap(temporary, mode="r"))
                digest.update(stamp)
                with temporary.open("ab") as stream:
                    stream.write(stamp + digest.digest())
            self._saved = self.state
        except (OSError, RuntimeError) as error:
            log.warning("could not save %s (%s); it is rebuilt when needed", self._path, error)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return rows of unit length, float32 [N, D]; sums in float64 so that no norm overflows."""
    wide = np.asarray(vectors, np.float64)
    return np.ascontiguousarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float32)


def _origin(store: Store, version: int) -> bytes:
    """Return what an index of this store at a version has to carry, 16 bytes.

    Versions are small numbers, which the index of another bank may well have too.
    """
    return xxhash.xxh3_128_digest(repr(store.last_change(version)).encode())


def _load(path: Path, dim: int, mapped: bool) -> tuple[Flat, State, bytes] | None:
    """Return the saved index, its state and its origin, or None for one that cannot be trusted.

    Every byte is read and hashed before FAISS sees it: a flipped or missing one means a rebuild.
    """
    try:
        data = np.memmap(path, np.uint8, mode="r")
        end = data.size - _DIGEST
        if xxhash.xxh3_128_digest(data[:end]) != data[end:].tobytes():
            raise ValueError("checksum differs")
        end -= _STAMP.size
        stamp = data[end : end + _STAMP.size].tobytes()
        magic, generation, version, removed, origin = _STAMP.unpack(stamp)
        if magic != _MAGIC:
            raise ValueError("not written by this format")
        kind = read(path, mapped=mapped)
        if kind.faiss.d != dim:
            raise ValueError(f"holds vectors of dimension {kind.faiss.d}")
        if removed:
            kind.remove(np.frombuffer(data[end - 8 * removed : end].tobytes(), np.int64))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        log.warning("%s is damaged (%s); rebuilding it from the store", path, error)
        return None
    return kind, State(generation, version), origin
