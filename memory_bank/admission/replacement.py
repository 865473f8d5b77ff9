"""Replacement policies: which entry a new image evicts when its emotion is at capacity.

Only `highest_confidence`, the published policy, ever evicts real images.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np

from memory_bank.store.entry import Candidate, Entry, Provenance

Replacement = Callable[[Sequence[Entry], Candidate, np.random.Generator], Entry | None]
"""Takes the entries that may be evicted (ascending by id), the candidate and a random generator;
returns the entry to evict, or None to keep all."""


def keep_all(held: Sequence[Entry], candidate: Candidate, rng: np.random.Generator) -> Entry | None:
    """Evict nothing: an emotion at capacity takes no new images."""
    return None


def lowest_confidence(
    held: Sequence[Entry], candidate: Candidate, rng: np.random.Generator
) -> Entry | None:
    """Evict the least confident entry for a more confident candidate.

    The bank converges to the judge's favourites: least label noise, least variety.
    """
    worst = min(held, key=confidence, default=None)
    return worst if worst is not None and confidence(worst) < confidence(candidate) else None


def at_random(
    held: Sequence[Entry], candidate: Candidate, rng: np.random.Generator
) -> Entry | None:
    """Evict a random entry: the bank follows the newest generator."""
    return held[int(rng.integers(len(held)))] if held else None


def reservoir(
    held: Sequence[Entry], candidate: Candidate, rng: np.random.Generator
) -> Entry | None:
    """Keep a uniform sample of all images ever admitted: those with the lowest random keys.

    Ref: Vitter 1985, in the form of Efraimidis & Spirakis 2006, which needs no count of the past.
    """
    last = max(held, key=random_key, default=None)
    return last if last is not None and random_key(candidate) < random_key(last) else None


def highest_confidence(
    held: Sequence[Entry], candidate: Candidate, rng: np.random.Generator
) -> Entry | None:
    """Evict the most confident entry of the whole bank, INCLUDING REAL ONES, at capacity or not.

    For comparison with EmoSym as released: bank = generated[:K] + bank[K:], both sorted by
    confidence. Real images are evicted until none is left. Ref: online_bank.py of its release.
    """
    return max(held, key=confidence, default=None)


PUBLISHED = "highest_confidence"
REPLACEMENTS: dict[str, Replacement] = {
    "none": keep_all,
    "reservoir": reservoir,
    "lowest_confidence": lowest_confidence,
    "random": at_random,
    PUBLISHED: highest_confidence,
}
"""Replacement policies by name."""


def confidence(image: Provenance) -> float:
    """Return the confidence for ranking; a missing or NaN one ranks last."""
    value = image.confidence
    return -math.inf if value is None or math.isnan(value) else value


def random_key(image: Provenance) -> str:
    """Return the random key of an image: uniform over images, as text, always the same for one."""
    origin = (image.model_hash, image.prompt, image.seed, image.step, image.fingerprint)
    return hashlib.sha256(repr(origin).encode()).hexdigest()
