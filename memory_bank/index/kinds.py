"""Index kinds over unit vectors, compared by inner product: flat, ivf, hnsw."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import faiss
import numpy as np

from emosym.errors import unknown
from memory_bank.store.database import AUTO

FLAT_UP_TO = 300_000
"""Entries up to which the setting `AUTO` chooses flat; above it chooses ivf.

Measured: docs/memory.md, "How fast".
"""

Sample = Callable[[int], np.ndarray]
"""Takes n; returns n of the vectors to be added, float32 [n, D], or all if there are fewer."""


class IndexKind(ABC):
    """A FAISS index under 64-bit ids that can also delete."""

    NAME: ClassVar[str]
    """Name of the kind in the bank's setting."""

    def __init__(self, index: faiss.Index, *, mapped: bool = False) -> None:
        self.faiss: Any = index  # FAISS's type stub lacks the attributes of its subclasses
        self.mapped = mapped
        """Whether the vectors are memory-mapped from a file, which is never written to."""
        self.removed = np.empty(0, np.int64)
        """Removed ids that FAISS cannot delete, int64 [R]; searches leave them out."""

    @classmethod
    @abstractmethod
    def empty(cls, dim: int, size: int, sample: Sample) -> Self:
        """Return an empty index with parameters for `size` vectors [dim]."""

    @classmethod
    @abstractmethod
    def holds(cls, index: faiss.Index) -> bool:
        """Return whether an index read from a file is of this kind."""

    @property
    @abstractmethod
    def ids(self) -> np.ndarray:
        """Ids that a search can find, int64 [N], in no particular order."""

    @abstractmethod
    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Add unit vectors [N, D] under new ids [N]."""

    @abstractmethod
    def remove(self, ids: np.ndarray) -> None:
        """Remove ids, so that no search finds them."""

    @abstractmethod
    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (cosines [Q, k], ids [Q, k]), best first; id -1 where fewer than k were found."""

    @abstractmethod
    def outgrown(self) -> bool:
        """Return whether the index should be built anew, because its parameters no longer fit."""

    def __len__(self) -> int:
        return self.faiss.ntotal - self.removed.size

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the vectors of ids, float32 [N, D]."""
        return self.faiss.reconstruct_batch(ids)


class Flat(IndexKind):
    """Exact search: a query is compared with every vector. The only kind that can be mapped."""

    NAME = "flat"

    @classmethod
    def empty(cls, dim: int, size: int, sample: Sample) -> Self:
        """Return an empty index for vectors [dim]."""
        return cls(faiss.IndexIDMap2(faiss.IndexFlatIP(dim)))

    @classmethod
    def holds(cls, index: faiss.Index) -> bool:
        """Return whether an index read from a file is flat."""
        return _maps_ids_of(index, faiss.IndexFlat)

    @property
    def ids(self) -> np.ndarray:
        """Ids that a search can find, int64 [N], in no particular order."""
        return faiss.vector_to_array(self.faiss.id_map)

    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Add unit vectors [N, D] under new ids [N]."""
        self._load_mapped()
        self.faiss.add_with_ids(vectors, ids)

    def remove(self, ids: np.ndarray) -> None:
        """Remove ids, so that no search finds them."""
        self._load_mapped()
        self.faiss.remove_ids(ids)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (cosines [Q, k], ids [Q, k]), best first; id -1 where fewer than k were found."""
        return self.faiss.search(queries, k)

    def outgrown(self) -> bool:
        """Return False: an exact index has no parameters."""
        return False

    def _load_mapped(self) -> None:
        """Copy mapped vectors into memory before a change; FAISS would abort the process."""
        if self.mapped:
            core: Any = faiss.downcast_index(self.faiss.index)
            vectors = faiss.rev_swig_ptr(core.get_xb(), core.ntotal * core.d).reshape(-1, core.d)
            copy = Flat.empty(core.d, core.ntotal, lambda count: vectors[:count])
            copy.faiss.add_with_ids(vectors, self.ids)
            self.faiss, self.mapped = copy.faiss, False


class IVF(IndexKind):
    """Inverted lists around centroids: a query is compared with the nearest lists only."""

    NAME = "ivf"
    PROBES = 64
    """Lists searched for a query. Recall for a million vectors is 0.996; with 32 lists 0.990."""
    SAMPLES_PER_LIST = 40
    """Training vectors for each centroid; FAISS asks for 39."""

    @classmethod
    def empty(cls, dim: int, size: int, sample: Sample) -> Self:
        """Return an empty index whose centroids are trained on a sample."""
        lists = cls.lists_for(size)
        # A single list holds every vector, wherever its centroid lies.
        vectors = (
            sample(cls.SAMPLES_PER_LIST * lists) if lists > 1 else np.eye(1, dim, dtype=np.float32)
        )
        index: Any = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT
        )
        index.train(vectors)
        index.set_direct_map_type(_HASHTABLE)
        return cls(index)

    @classmethod
    def holds(cls, index: faiss.Index) -> bool:
        """Return whether an index read from a file is an ivf index that can delete by id.

        Its vectors are in the file itself: lists on disk are a file that the index names, anywhere.
        """
        if not isinstance(index, faiss.IndexIVFFlat) or index.direct_map.type != _HASHTABLE:
            return False
        inner: Any = index
        lists = faiss.downcast_InvertedLists(inner.invlists)
        quantizer = faiss.downcast_index(inner.quantizer)
        return isinstance(lists, faiss.ArrayInvertedLists) and isinstance(
            quantizer, faiss.IndexFlat
        )

    @classmethod
    def lists_for(cls, size: int) -> int:
        """Return 2 √size, for which searching lists costs about as much as choosing them."""
        return max(1, min(int(2 * math.sqrt(size)), size // cls.SAMPLES_PER_LIST))

    @property
    def ids(self) -> np.ndarray:
        """Ids that a search can find, int64 [N], in no particular order."""
        lists = self.faiss.invlists
        ids = [
            faiss.rev_swig_ptr(lists.get_ids(place), lists.list_size(place)).copy()
            for place in range(lists.nlist)
            if lists.list_size(place)
        ]
        return np.concatenate([np.empty(0, np.int64), *ids])

    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Add unit vectors [N, D] under new ids [N]."""
        self.faiss.add_with_ids(vectors, ids)

    def remove(self, ids: np.ndarray) -> None:
        """Remove ids, so that no search finds them."""
        self.faiss.remove_ids(faiss.IDSelectorArray(ids))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (cosines [Q, k], ids [Q, k]), best first; id -1 where fewer than k were found."""
        return self.faiss.search(queries, k, params=_ivf_parameters(nprobe=self.PROBES))

    def outgrown(self) -> bool:
        """Return whether it holds four times as many vectors as its lists are meant for."""
        return self.lists_for(len(self)) > 2 * self.faiss.nlist


class HNSW(IndexKind):
    """Hierarchical navigable small-world graph: a query follows links between near vectors."""

    NAME = "hnsw"
    LINKS, EF_CONSTRUCTION, EF_SEARCH = 32, 100, 128
    """Links per vector (M), and candidates kept while building and while searching."""

    @classmethod
    def empty(cls, dim: int, size: int, sample: Sample) -> Self:
        """Return an empty index for vectors [dim]."""
        index: Any = faiss.IndexHNSWFlat(dim, cls.LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = cls.EF_CONSTRUCTION
        return cls(faiss.IndexIDMap2(index))

    @classmethod
    def holds(cls, index: faiss.Index) -> bool:
        """Return whether an index read from a file is of this kind."""
        return _maps_ids_of(index, faiss.IndexHNSWFlat)

    @property
    def ids(self) -> np.ndarray:
        """Ids that a search can find, int64 [N], in no particular order."""
        return np.setdiff1d(faiss.vector_to_array(self.faiss.id_map), self.removed)

    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Add unit vectors [N, D] under new ids [N]."""
        self.faiss.add_with_ids(vectors, ids)

    def remove(self, ids: np.ndarray) -> None:
        """Leave ids out of all searches: the graph itself cannot delete."""
        self.removed = np.union1d(self.removed, ids)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (cosines [Q, k], ids [Q, k]), best first; id -1 where fewer than k were found."""
        parameters = _hnsw_parameters(efSearch=max(self.EF_SEARCH, 2 * k))
        if self.removed.size:
            parameters.sel = faiss.IDSelectorNot(faiss.IDSelectorBatch(self.removed))
        return self.faiss.search(queries, k, params=parameters)

    def outgrown(self) -> bool:
        """Return whether more than a fifth of the graph is removed."""
        return self.removed.size > self.faiss.ntotal // 5


KINDS: dict[str, type[IndexKind]] = {kind.NAME: kind for kind in (Flat, IVF, HNSW)}
"""Index kinds by name."""


def check_setting(setting: str) -> str:
    """Return a bank's index setting; raise UserError when it is neither a kind nor `AUTO`."""
    if setting not in (AUTO, *KINDS):
        raise unknown("kind of index", setting, (AUTO, *KINDS))
    return setting


def kind_for(setting: str, size: int) -> type[IndexKind]:
    """Return the kind of index for a bank of this setting and size."""
    if setting == AUTO:
        return Flat if size <= FLAT_UP_TO else IVF
    return KINDS[setting]


def read(path: Path, *, mapped: bool) -> IndexKind:
    """Return the index in a file; raise ValueError when it is of none of the kinds.

    A mapped index opens at once, and processes that read it share its memory. A kind that cannot
    be mapped is read into memory.
    """
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    for kind in KINDS.values():
        if kind.holds(index):
            if mapped and kind is not Flat:
                return read(path, mapped=False)
            return kind(index, mapped=mapped)
    raise ValueError(f"holds {type(index).__name__}")


# FAISS's type stub lacks these names.
_HASHTABLE = faiss.DirectMap.Hashtable  # type: ignore[attr-defined]  # see above
_hnsw_parameters: Any = faiss.SearchParametersHNSW  # type: ignore[attr-defined]  # see above
_ivf_parameters: Any = faiss.SearchParametersIVF


def _maps_ids_of(index: faiss.Index, core: type) -> bool:
    """Return whether an index maps ids to the places of a `core` index."""
    if not isinstance(index, faiss.IndexIDMap2):
        return False
    inner: Any = index
    return isinstance(faiss.downcast_index(inner.index), core)
