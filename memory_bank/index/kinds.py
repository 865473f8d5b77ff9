"""Kinds of index over unit vectors, compared by inner product: exact, inverted lists, graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

import faiss
import numpy as np

from emosym.errors import unknown
from memory_bank.store.database import AUTO

EXACT_UP_TO = 300_000
"""Entries up to which the setting `AUTO` stays exact, with inverted lists above.

Measured: docs/memory.md, "How fast".
"""

Sample = Callable[[int], np.ndarray]
"""How many -> that many vectors of those to come, float32 [n, D]; all when there are fewer."""


class Flat:
    """Every vector is compared: exact. Also what the other kinds have in common with it."""

    NAME: ClassVar[str] = "flat"
    CORE: ClassVar[type] = faiss.IndexFlat
    """FAISS's class that holds the vectors."""

    def __init__(self, index: faiss.Index, *, mapped: bool = False) -> None:
        self.faiss = index
        self.mapped = mapped
        """Whether the vectors lie in a file, which is never written to."""
        self.removed = np.empty(0, np.int64)
        """Ids that FAISS cannot forget, and that no search may tell of."""

    @classmethod
    def empty(cls, dim: int, size: int, sample: Sample) -> Self:
        """Return an index that holds nothing yet, made for `size` vectors [dim]."""
        return cls(faiss.IndexIDMap2(faiss.IndexFlatIP(dim)))

    @classmethod
    def holds(cls, index: faiss.Index) -> bool:
        """Return whether an index read from a file is of this kind."""
        return isinstance(index, faiss.IndexIDMap2) and isinstance(
            faiss.downcast_index(index.index), cls.CORE
        )

    @property
    def ids(self) -> np.ndarray:
        """Ids that a search can find, int64 [N], in no particular order."""
        return faiss.vector_to_array(self.faiss.id_map)

    def __len__(self) -> int:
        return self.faiss.ntotal

    def worn(self) -> bool:
        """Return whether it serves what it holds so badly that it should be built anew."""
        return False

    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Take unit vectors [N, D] under new ids [N]."""
        self._own()
        self.faiss.add_with_ids(vectors, ids)

    def remove(self, ids: np.ndarray) -> None:
        """Let no search find these ids any more."""
        self._own()
        self.faiss.remove_ids(ids)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (cosines [Q, k], ids [Q, k]), best first; id -1 where it found fewer than k."""
        return self.faiss.search(queries, k)

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the vectors of ids, float32 [N, D]."""
        return self.faiss.reconstruct_batch(ids)

    def _own(self) -> None:
        """Take vectors that lie in a file into memory, before they change: FAISS would abort."""
        if self.mapped:
            core, ids = faiss.downcast_index(self.faiss.index), self.ids
            vectors = faiss.rev_swig_ptr(core.get_xb(), core.ntotal * core.d).reshape(-1, core.d)
            own = type(self).empty(core.d, core.ntotal, lambda count: vectors[:count])
            own.faiss.add_with_ids(vectors, ids)
            self.faiss, self.mapped = own.faiss, False


class Inverted(Flat):
    """Vectors in lists around centres; a query reads the lists of its nearest centres only."""

    NAME = "ivf"
    CORE = faiss.IndexIVFFlat
    PROBES = 64
    """Lists that a query reads; half as many find 0.990 of a million's neighbours, these 0.996."""
    SAMPLE = 40
    """Vectors for each centre to place it with; FAISS asks for 39."""

    @classmethod
    def empty(cls, dim: int, size: int, sample: Sample) -> Self:
        """Return an index that holds nothing yet, its centres placed on a sample."""
        lists = cls.lists_for(size)
        # One list holds everything, wherever its centre is.
        vectors = sample(cls.SAMPLE * lists) if lists > 1 else np.eye(1, dim, dtype=np.float32)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        return cls(index)

    @classmethod
    def holds(cls, index: faiss.Index) -> bool:
        """Return whether an index read from a file is of this kind."""
        return isinstance(index, cls.CORE) and index.direct_map.type == faiss.DirectMap.Hashtable

    @classmethod
    def lists_for(cls, size: int) -> int:
        """Return 2 √size: reading lists then costs about as much as choosing them."""
        return max(1, min(int(2 * math.sqrt(size)), size // cls.SAMPLE))

    @property
    def ids(self) -> np.ndarray:
        """Ids that a search can find, int64 [N], in no particular order."""
        lists = self.faiss.invlists
        parts = [
            faiss.rev_swig_ptr(lists.get_ids(place), lists.list_size(place)).copy()
            for place in range(lists.nlist)
            if lists.list_size(place)
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def worn(self) -> bool:
        """Return whether it holds four times what its lists were made for."""
        return self.lists_for(len(self)) > 2 * self.faiss.nlist

    def remove(self, ids: np.ndarray) -> None:
        """Let no search find these ids any more."""
        self.faiss.remove_ids(faiss.IDSelectorArray(ids))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (cosines [Q, k], ids [Q, k]), best first; id -1 where it found fewer than k."""
        return self.faiss.search(queries, k, params=faiss.SearchParametersIVF(nprobe=self.PROBES))


class Graph(Flat):
    """Vectors linked to near ones (HNSW); a query walks along the links."""

    NAME = "hnsw"
    CORE = faiss.IndexHNSWFlat
    LINKS, BUILD_WIDTH, SEARCH_WIDTH = 32, 100, 128
    """Links of a vector, and candidates kept while linking and while walking."""

    @classmethod
    def empty(cls, dim: int, size: int, sample: Sample) -> Self:
        """Return an index that holds nothing yet."""
        index = faiss.IndexHNSWFlat(dim, cls.LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = cls.BUILD_WIDTH
        return cls(faiss.IndexIDMap2(index))

    @property
    def ids(self) -> np.ndarray:
        """Ids that a search can find, int64 [N], in no particular order."""
        return np.setdiff1d(faiss.vector_to_array(self.faiss.id_map), self.removed)

    def __len__(self) -> int:
        return self.faiss.ntotal - self.removed.size

    def worn(self) -> bool:
        """Return whether more than a fifth of the graph is removed."""
        return self.removed.size > self.faiss.ntotal // 5

    def remove(self, ids: np.ndarray) -> None:
        """Let no search find these ids any more."""
        self.removed = np.union1d(self.removed, ids)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (cosines [Q, k], ids [Q, k]), best first; id -1 where it found fewer than k."""
        parameters = faiss.SearchParametersHNSW(efSearch=max(self.SEARCH_WIDTH, 2 * k))
        if self.removed.size:
            parameters.sel = faiss.IDSelectorNot(faiss.IDSelectorBatch(self.removed))
        return self.faiss.search(queries, k, params=parameters)


KINDS: dict[str, type[Flat]] = {kind.NAME: kind for kind in (Flat, Inverted, Graph)}
"""Every kind by name."""


def check_setting(setting: str) -> str:
    """Return the setting of a bank; raise UserError when it is neither a kind nor `AUTO`."""
    if setting not in (AUTO, *KINDS):
        raise unknown("kind of index", setting, (AUTO, *KINDS))
    return setting


def kind_for(setting: str, size: int) -> type[Flat]:
    """Return the kind that a bank of this size and setting should have."""
    if setting == AUTO:
        return Flat if size <= EXACT_UP_TO else Inverted
    return KINDS[setting]


def read(path: Path, *, mapped: bool) -> Flat:
    """Return the index of a file; raise ValueError when it is of none of the kinds.

    A mapped one opens at once, and processes that read it share its memory; of a kind that cannot
    be mapped it is read as ever.
    """
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    for kind in KINDS.values():
        if kind.holds(index):
            if mapped and kind is not Flat:
                return read(path, mapped=False)
            return kind(index, mapped=mapped)
    raise ValueError(f"holds {type(index).__name__}")
