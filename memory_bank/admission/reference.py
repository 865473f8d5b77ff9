"""Thresholds measured on the bank's real images, so that they fit the embedder in use.

The cosines of one embedder lie near 0.98, those of another near 0.6. A quantile of the cosines
between real images fits both; a fixed number fits one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memory_bank.admission.gates import AdmissionPolicy, quality
from memory_bank.bank import MemoryBank
from memory_bank.search import Hit
from memory_bank.store.entry import Entry

MIN_IMAGES = 20
"""Real images needed to estimate a quantile."""
MAX_IMAGES = 1000
"""Real images from which the cosines are measured at most."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Thresholds measured on the bank's real images; None with too few of them."""

    min_quality: float | None
    min_cosine: float | None
    max_cosine: float | None
    label_counts: dict[str, int]
    """Emotion -> real images labelled with it."""
    skipped: dict[str, str]
    """Gate -> why one of its thresholds could not be measured."""


def measure(bank: MemoryBank, policy: AdmissionPolicy) -> Reference:
    """Measure the thresholds that the gates of a policy take from the bank's real images."""
    real = bank.entries(source="real")
    skipped: dict[str, str] = {}

    min_quality = None
    if "quality" in policy.gates and policy.quality_quantile:
        scores = [
            value for one in real if (value := quality(one, policy.quality_score)) is not None
        ]
        if len(scores) < MIN_IMAGES:
            name = policy.quality_score
            skipped["quality"] = f"{len(scores)} real images with {name}, {MIN_IMAGES} needed"
        else:
            min_quality = float(np.quantile(scores, policy.quality_quantile))

    low, high = policy.min_cosine, policy.max_cosine
    if "novelty" in policy.gates and (low is None or high is None):
        if len(real) < MIN_IMAGES:
            skipped["novelty"] = f"{len(real)} real images, {MIN_IMAGES} needed"
        else:
            cosines = _nearest_cosines(bank, real)
            low = float(np.quantile(cosines, policy.outlier_quantile)) if low is None else low
            high = float(np.quantile(cosines, policy.near_copy_quantile)) if high is None else high

    counts: dict[str, int] = {}
    for one in real:
        if one.emotion is not None:
            counts[one.emotion] = counts.get(one.emotion, 0) + 1
    return Reference(min_quality, low, high, counts, skipped)


def agreement(hits: Sequence[Hit], label: str | None, policy: AdmissionPolicy) -> float | None:
    """Return the share of the `neighbours` nearest labelled real images that have a label.

    None without a label or with too few neighbours.
    """
    labels = [hit.entry.emotion for hit in hits if hit.entry.emotion is not None]
    if label is None or len(labels) < policy.neighbours:
        return None
    return labels[: policy.neighbours].count(label) / policy.neighbours


def agreement_unknown(
    label: str | None, reference: Reference, policy: AdmissionPolicy
) -> str | None:
    """Return why the agreement of neighbours with a label means nothing; None if it does.

    A label with fewer real images than have to agree could never pass.
    """
    total = sum(reference.label_counts.values())
    if total < policy.neighbours:
        return f"{total} labelled real images, {policy.neighbours} needed"
    needed = math.ceil(policy.neighbours * policy.min_agreement)
    count = reference.label_counts.get(label, 0) if label is not None else 0
    if count < needed:
        return f"{count} real images of {label}, {needed} needed"
    return None


def _nearest_cosines(bank: MemoryBank, real: Sequence[Entry]) -> np.ndarray:
    """Return the cosines of at most `MAX_IMAGES` real images to their nearest other real image."""
    count = min(MAX_IMAGES, len(real))
    chosen = [real[place * len(real) // count].id for place in range(count)]
    found = bank.search(bank.embeddings(chosen), 2, source="real")
    return np.array(
        [
            next(hit.cosine for hit in hits if hit.entry.id != own)
            for own, hits in zip(chosen, found, strict=True)
        ]
    )
