"""Searches of a bank: by embedding, by affect and by the words of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from emosym.affect.scales import PUBLIC, Affect
from emosym.errors import UserError
from memory_bank.index.index import Index
from memory_bank.store.entry import Entry
from memory_bank.store.filter import Filter
from memory_bank.store.store import Store
from memory_bank.store.vectors import check_vectors
from memory_bank.words import content_words

Encode = Callable[[Sequence[str]], np.ndarray]
"""Takes texts, returns unit vectors [N, P] whose cosine compares meanings."""
NEAR = 0.45
"""Least cosine of a prompt that is found by its meaning.

Of all-MiniLM-L6-v2: docs/memory.md, "Search".
"""


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
    """An entry found by its prompt: by words that it shares with the query, or by its meaning."""

    entry: Entry
    match: float
    """BM25 of shared words, > 0; comparable within one search only. 0 if it shares none."""
    meaning: float | None
    """Cosine of the sentence embeddings of prompt and query; None if words are shared."""


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


def search_text(
    store: Store, words: str, k: int, condition: Filter, encode: Encode | None
) -> list[TextHit]:
    """Return the k entries whose prompts match words best, see `MemoryBank.search_text`."""
    _check_k(k)
    wanted = content_words(words)
    if not wanted:
        raise UserError(
            "a search without words",
            got=repr(words),
            expected="words of a prompt, and not only such as 'a', 'of', 'the'",
        )
    scores = store.word_scores(wanted, condition)
    best = sorted(scores, key=lambda number: (-scores[number], number))[:k]
    entries = store.entries_of(best)
    hits = [TextHit(entries[number], scores[number], None) for number in best]
    if encode is not None and len(hits) < k:
        others = [entry for entry in store.entries(condition) if entry.id not in scores]
        hits += _by_meaning(words, others, k - len(hits), encode)
    return hits


def _by_meaning(words: str, entries: Sequence[Entry], k: int, encode: Encode) -> list[TextHit]:
    """Return the k entries whose prompts are nearest in meaning, of those that are near at all."""
    prompts = sorted({entry.prompt for entry in entries if entry.prompt})
    if not prompts:
        return []
    query, *vectors = np.asarray(encode([words, *prompts]), np.float32)
    cosines = dict(zip(prompts, (np.stack(vectors) @ query).tolist(), strict=True))
    near = [
        TextHit(entry, 0.0, cosines[entry.prompt])
        for entry in entries
        if entry.prompt and cosines[entry.prompt] >= NEAR
    ]
    return sorted(near, key=lambda hit: (-(hit.meaning or 0), hit.entry.id))[:k]


def check_queries(queries: np.ndarray, dim: int) -> np.ndarray:
    """Return queries [D] or [Q, D] as float32 [Q, D]. Raises as `check_vectors`."""
    return check_vectors(queries, dim).reshape(-1, dim)


def _check_k(k: int) -> None:
    if k < 1:
        raise UserError("the number of neighbours", got=k, expected="at least 1")
