"""Diversity of the bank's images, and the rule that stops admission when it falls."""

from __future__ import annotations

from collections import Counter

import numpy as np

from memory_bank.admission.gates import AdmissionPolicy
from memory_bank.bank import MemoryBank
from memory_bank.store.entry import Provenance

MIN_IMAGES, MAX_IMAGES = 64, 256
"""Images of each source that are compared; with fewer than `MIN_IMAGES` the score is unknown."""
WINDOW = 256
"""Newest candidates, in whole pools, from which the admission rate is measured; with fewer the
rate is unknown."""


def stop_reason(bank: MemoryBank, policy: AdmissionPolicy) -> str | None:
    """Return why admission must stop, or None to continue.

    The result depends on the bank and the policy alone: after copies are removed, or a rollback,
    admission can continue.
    """
    return _rate_reason(bank, policy) or _diversity_reason(bank, policy)


def _rate_reason(bank: MemoryBank, policy: AdmissionPolicy) -> str | None:
    entered = Counter(
        entry.added for entry in bank.entries(source="synthetic") if _from_training(entry)
    )
    refused = Counter(one.version for one in bank.refusals() if _from_training(one))
    count, admitted = 0, 0
    for version in sorted(entered | refused, reverse=True):  # whole pools, newest first
        count += entered[version] + refused[version]
        admitted += entered[version]
        if count >= WINDOW:
            break
    low, high = policy.min_admission_rate, policy.max_admission_rate
    if count < WINDOW or low <= admitted / count <= high:
        return None
    return f"{admitted} of the last {count} candidates entered, outside {low:.0%} to {high:.0%}"


def _diversity_reason(bank: MemoryBank, policy: AdmissionPolicy) -> str | None:
    scores = diversity(bank)
    if scores is None or scores[1] >= (1 - policy.max_diversity_loss) * scores[0]:
        return None
    return (
        f"synthetic images have a Vendi score of {scores[1]:.1f}, more than"
        f" {policy.max_diversity_loss:.0%} below the {scores[0]:.1f} of as many real ones"
    )


def diversity(bank: MemoryBank) -> tuple[float, float] | None:
    """Return the Vendi scores of equally many real and synthetic images; None with too few.

    The mean of the real embeddings is subtracted first. Embeddings whose cosines are all near 1,
    such as the hidden states of a classifier, would otherwise have scores near 1.
    """
    ids = {source: [one.id for one in bank.entries(source=source)] for source in _SOURCES}
    count = min(MAX_IMAGES, *map(len, ids.values()))
    if count < MIN_IMAGES:
        return None
    real, synthetic = (bank.embeddings(_sample(ids[source], count)) for source in _SOURCES)
    centre = real.mean(0)
    return vendi(real - centre), vendi(synthetic - centre)


def vendi(vectors: np.ndarray) -> float:
    """Return the Vendi score of vectors [N, D], from 1 (copies) to N (all orthogonal).

    The exponential of the entropy of the eigenvalues of K / N, where K holds the cosines of all
    pairs. NaN if a vector is zero. Ref: Friedman & Dieng 2023, arXiv 2210.02410, order q = 1.
    """
    rows = vectors.astype(np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    shares = np.linalg.svd(units, compute_uv=False) ** 2 / len(units)
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))


_SOURCES = ("real", "synthetic")


def _from_training(image: Provenance) -> bool:
    """Return whether a training step offered the image, not a person."""
    return image.source == "synthetic" and image.step is not None


def _sample(ids: list[int], count: int) -> list[int]:
    """Return a fixed random sample: equal spacing could correlate with the content."""
    places = np.random.default_rng(count).choice(len(ids), count, replace=False)
    return [ids[place] for place in np.sort(places)]
