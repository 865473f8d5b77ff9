"""Who leaves a full class for a new image: a registry of small pure policies.

Real images never leave, except by the published policy, which has to be asked for by name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np

from memory_bank.store.entry import Candidate, Entry, Provenance

Replacement = Callable[[Sequence[Entry], Candidate, np.random.Generator], Entry | None]
"""Returns who leaves for a candidate, of those held (by id, ascending); None: nobody does."""


def nobody(held: Sequence[Entry], candidate: Candidate, rng: np.random.Generator) -> Entry | None:
    """Keep what is held: a full class stays as it is."""
    return None


def lowest_confidence(
    held: Sequence[Entry], candidate: Candidate, rng: np.random.Generator
) -> Entry | None:
    """Replace the least confident one by a more confident one.

    In the end the class is what the judge likes best: least noise, least variety.
    """
    worst = min(held, key=confidence, default=None)
    return worst if worst is not None and confidence(worst) < confidence(candidate) else None


def at_random(
    held: Sequence[Entry], candidate: Candidate, rng: np.random.Generator
) -> Entry | None:
    """Replace any one: the class follows the newest generator."""
    return held[rng.integers(len(held))] if held else None


def reservoir(
    held: Sequence[Entry], candidate: Candidate, rng: np.random.Generator
) -> Entry | None:
    """Keep a uniform sample of all that ever came: each image has a ticket, the lowest stay.

    Ref: Vitter 1985, in the form of Efraimidis & Spirakis 2006, which needs no count of the past.
    """
    last = max(held, key=ticket, default=None)
    return last if last is not None and ticket(candidate) < ticket(last) else None


def highest_confidence(
    held: Sequence[Entry], candidate: Candidate, rng: np.random.Generator
) -> Entry | None:
    """Replace the most confident one of the whole bank, REAL IMAGES TOO, full or not.

    As EmoSym is released: bank = generated[:K] + bank[K:], sorted by confidence. It is here to be
    compared with: each admitted image costs a real one until none is left. Ref: its online_bank.py.
    """
    return max(held, key=confidence, default=None)


PUBLISHED = "highest_confidence"
REPLACEMENTS: dict[str, Replacement] = {
    "none": nobody,
    "reservoir": reservoir,
    "lowest_confidence": lowest_confidence,
    "random": at_random,
    PUBLISHED: highest_confidence,
}
"""Every replacement by name."""


def confidence(image: Provenance) -> float:
    """Return the confidence to rank by; one that is missing or NaN ranks last."""
    value = image.confidence
    return -math.inf if value is None or math.isnan(value) else value


def ticket(image: Provenance) -> str:
    """Return a number, as text, that is uniform over images and the same whenever one is met."""
    drawn = (image.model_hash, image.prompt, image.seed, image.step, image.fingerprint)
    return hashlib.sha256(repr(drawn).encode()).hexdigest()
