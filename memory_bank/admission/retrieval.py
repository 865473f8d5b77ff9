"""What the bank's other images say of one: what is alike, and what differs in emotion alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from memory_bank.bank import MemoryBank
from memory_bank.store.entry import Entry

LEAST_OVERLAP = 0.5
"""Share of their words that two prompts have in common, from which on they show the same."""


def affect_prior(bank: MemoryBank, queries: np.ndarray, k: int = 10) -> np.ndarray:
    """Return the mean valence and arousal of the k nearest real images of each query, [Q, 2].

    On `affect.PUBLIC`; NaN where none of them is rated. What people said of images alike, for an
    image that nobody has rated.

    Raises:
        UserError: as `MemoryBank.search`.
    """
    found = bank.search(queries, k, source="real")
    prior = np.full((len(found), 2), np.nan)
    for row, hits in zip(prior, found, strict=True):
        rated = [(h.entry.valence, h.entry.arousal) for h in hits if h.entry.valence is not None]
        if rated:
            row[:] = np.mean(rated, axis=0)
    return prior


def hard_negatives(
    entries: Sequence[Entry], wanted: Sequence[tuple[str | None, str | None]]
) -> list[Entry | None]:
    """Return, for each (prompt, emotion), who shows the same and evokes another emotion.

    The entry whose prompt shares most words with it (intersection over union), at least
    `LEAST_OVERLAP`; of equals, the one with the lowest id. None where nobody does, or where prompt
    or emotion is unknown. Content is told by the words, since the bank's vectors tell emotion.
    """
    known = [
        (one, _words(one.prompt)) for one in sorted(entries, key=lambda one: one.id) if one.emotion
    ]
    return [_hardest(known, prompt, emotion) for prompt, emotion in wanted]


def _hardest(
    known: Sequence[tuple[Entry, frozenset[str]]], prompt: str | None, emotion: str | None
) -> Entry | None:
    words = _words(prompt)
    if not words or emotion is None:
        return None
    best, most = None, 0.0
    for one, others in known:
        overlap = len(words & others) / len(words | others)
        if one.emotion != emotion and overlap >= LEAST_OVERLAP and overlap > most:
            best, most = one, overlap
    return best


def _words(prompt: str | None) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", (prompt or "").lower()))
