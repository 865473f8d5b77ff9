"""Searches of a bank: by embedding, by affect and by the words of prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from emosym.affect.scales import PUBLIC, Affect
from emosym.errors import UserError
from memory_bank.index.index import Index
from memory_bank.store.entry import Entry
from memory_bank.store.filter import Filter
from memory_bank.store.store import Store
from memory_bank.store.vectors import check_vectors


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry found by its embedding."""

    entry: Entry
    cosine: float
    """Similarity to the query in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class AffectHit:
    """An entry found by its valence and arousal."""

    entry: Entry
    distance: float
    """`Affect.distance` on `affect.PUBLIC`."""


@dataclass(frozen=True, slots=True)
class TextHit:
    """An entry found by the words of its prompt."""

    entry: Entry
    match: float
    """BM25 score: higher is better; comparable within one search only."""


def search_embedding(
    store: Store, index: Index, queries: np.ndarray, k: int, condition: Filter
) -> list[list[Hit]]:
    """Return the k entries with the highest cosine to each query, see `MemoryBank.search`."""
    rows = check_queries(queries, store.dim)
    _check_k(k)
    among = store.ids(condition) if condition else None
    try:
        cosines, ids = index.search(rows, k, among)
    except RuntimeError:  # FAISS lacks ids that the store has
        index.build(store)
        cosines, ids = index.search(rows, k, among)
    found = np.setdiff1d(ids, -1).tolist()
    entries = store.entries_of(found)
    if len(entries) != len(found):  # the index is not of this store, though it says so
        index.build(store)
        return search_embedding(store, index, queries, k, condition)
    return [
        [Hit(entries[number], cosine) for cosine, number in zip(*row, strict=True) if number != -1]
        for row in zip(cosines.tolist(), ids.tolist(), strict=True)
    ]


def search_affect(entries: Iterable[Entry], affect: Affect, k: int) -> list[AffectHit]:
    """Return the k entries nearest in affect, see `MemoryBank.search_affect`."""
    _check_k(k)
    target = affect.to(PUBLIC)
    hits = []
    for entry in entries:
        found = entry.affect if entry.affect is not None else entry.predicted_affect
        if found is not None:
            hits.append(AffectHit(entry, found.distance(target)))
    return sorted(hits, key=lambda hit: (hit.distance, hit.entry.id))[:k]


def search_text(store: Store, words: str, k: int, condition: Filter) -> list[TextHit]:
    """Return the k entries whose prompts match words best, see `MemoryBank.search_text`."""
    _check_k(k)
    # Quoted, so that FTS5 reads them as words, never as operators.
    terms = [f'"{word}"' for word in re.findall(r"\w+", words)]
    if not terms:
        raise UserError("a search without words", got=repr(words), expected="words of a prompt")
    return [
        TextHit(entry, -score) for entry, score in store.matches(" OR ".join(terms), k, condition)
    ]


def check_queries(queries: np.ndarray, dim: int) -> np.ndarray:
    """Return queries [D] or [Q, D] as float32 [Q, D]. Raises as `check_vectors`."""
    return check_vectors(queries, dim).reshape(-1, dim)


def _check_k(k: int) -> None:
    if k < 1:
        raise UserError("the number of neighbours", got=k, expected="at least 1")
