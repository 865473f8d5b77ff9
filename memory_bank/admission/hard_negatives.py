"""Hard negatives: bank images with similar content that evoke another emotion."""

from __future__ import annotations

import re
from collections.abc import Sequence

from memory_bank.store.entry import Entry

MIN_OVERLAP = 0.5
"""Intersection over union of the words of two prompts from which their content counts as equal."""


def hard_negatives(
    entries: Sequence[Entry], anchors: Sequence[tuple[str | None, str | None]]
) -> list[Entry | None]:
    """Return, for each anchor (prompt, emotion), the entry most like it with another emotion.

    Similarity is the intersection over union of the words of two prompts, at least `MIN_OVERLAP`;
    among equals the lowest id. None if there is no such entry, or if the prompt or the emotion is
    unknown. Prompts are compared because the bank's embeddings represent emotion, not content.
    """
    labelled = [
        (entry, _words(entry.prompt))
        for entry in sorted(entries, key=lambda entry: entry.id)
        if entry.emotion
    ]
    return [_hard_negative(labelled, prompt, emotion) for prompt, emotion in anchors]


def _hard_negative(
    labelled: Sequence[tuple[Entry, frozenset[str]]], prompt: str | None, emotion: str | None
) -> Entry | None:
    words = _words(prompt)
    if not words or emotion is None:
        return None
    best, best_overlap = None, 0.0
    for entry, others in labelled:
        overlap = len(words & others) / len(words | others)
        if entry.emotion != emotion and overlap >= MIN_OVERLAP and overlap > best_overlap:
            best, best_overlap = entry, overlap
    return best


def _words(prompt: str | None) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", (prompt or "").lower()))
