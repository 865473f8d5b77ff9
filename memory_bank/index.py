"""Nearest neighbours by cosine: a FAISS index that can always be rebuilt from the store."""

from __future__ import annotations

import logging
import os
import struct
import sys
import zlib
from pathlib import Path

import faiss
import numpy as np

from memory_bank.durable import sync_folder
from memory_bank.store import State, Store

log = logging.getLogger(__name__)
_STAMP = struct.Struct("<8sQQ")
"""After FAISS's own bytes: magic, generation, version; then the CRC-32 of all that precedes it."""
_MAGIC = b"EMOBANK1"


class Index:
    """Exact inner product over L2-normalised vectors under the store's own ids.

    A cache: `catch_up` replays from the store what it has not seen, whatever was on the disk.
    """

    def __init__(self, path: Path, dim: int) -> None:
        if sys.platform == "darwin" and "torch" in sys.modules:
            # Two OpenMP runtimes in one process crash there.
            faiss.omp_set_num_threads(1)
        self._path, self._dim = path, dim
        self._faiss, self.state = _load(path, dim) or _empty(dim)
        self._saved = self.state

    def __len__(self) -> int:
        return self._faiss.ntotal

    @property
    def ids(self) -> np.ndarray:
        """Ids in the index, int64 [N], in no particular order."""
        return faiss.vector_to_array(self._faiss.id_map)

    def catch_up(self, store: Store) -> None:
        """Hold exactly the live vectors of the store's state."""
        if self.state.generation != store.state.generation or (
            self.state.version > store.state.version
        ):
            self._faiss, self.state = _empty(self._dim)
        removed = store.removed_since(self.state.version)
        if removed.size:
            self._faiss.remove_ids(removed)
        for ids, vectors in store.added_since(self.state.version):
            self._faiss.add_with_ids(normalised(vectors), ids)
        self.state = store.state

    def search(
        self, queries: np.ndarray, k: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (cosines [Q, k], ids [Q, k]), best first; id -1 where there are fewer than k.

        `queries` is [Q, D]; `among` restricts the search to these ids.
        """
        k = min(k, len(self) if among is None else among.size)
        if k == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        parameters = None
        if among is not None:
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(among))
        return self._faiss.search(normalised(queries), k, params=parameters)

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the normalised vectors of ids, float32 [N, D]."""
        return self._faiss.reconstruct_batch(ids)

    def save(self) -> None:
        """Write the index beside the store, whole or not at all; a cache may fail to be saved."""
        if self._saved == self.state:
            return
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        try:
            faiss.write_index(self._faiss, str(temporary))
            stamp = _STAMP.pack(_MAGIC, self.state.generation, self.state.version)
            checksum = zlib.crc32(stamp, zlib.crc32(np.memmap(temporary, mode="r")))
            with temporary.open("ab") as stream:
                stream.write(stamp + checksum.to_bytes(4, "little"))
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self._path)
            sync_folder(self._path.parent)
            self._saved = self.state
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            log.warning("could not save %s (%s); it is rebuilt when needed", self._path, error)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return rows of unit length, float32 [N, D]; sums in float64 so that no norm overflows."""
    wide = np.asarray(vectors, np.float64)
    return np.ascontiguousarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float32)


def _empty(dim: int) -> tuple[faiss.IndexIDMap2, State]:
    return faiss.IndexIDMap2(faiss.IndexFlatIP(dim)), State(0, 0)


def _load(path: Path, dim: int) -> tuple[faiss.IndexIDMap2, State] | None:
    """Return the saved index and its state, or None when there is none that can be trusted."""
    try:
        data = np.memmap(path, np.uint8, mode="r")
        if zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:].tobytes():
            raise ValueError("checksum differs")
        magic, generation, version = _STAMP.unpack(data[-4 - _STAMP.size : -4].tobytes())
        if magic != _MAGIC:
            raise ValueError("not written by this format")
        index = faiss.read_index(str(path))
        if not isinstance(index, faiss.IndexIDMap2) or index.d != dim:
            raise ValueError(f"holds {type(index).__name__} of dimension {index.d}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        log.warning("%s is damaged (%s); rebuilding it from the store", path, error)
        return None
    return index, State(generation, version)
