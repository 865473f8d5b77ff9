"""What the bank's real images say about a good image: bounds that fit the embedder at hand.

The cosines of one embedder crowd at 0.98 and those of another at 0.6, so a bound that is a number
fits one of them; a quantile of what real images do among themselves fits both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memory_bank.admission.gates import quality
from memory_bank.admission.policy import AdmissionPolicy
from memory_bank.bank import Hit, MemoryBank
from memory_bank.store.entry import Entry

LEAST = 20
"""Real images below which they have no quantiles to speak of."""
MOST = 1000
"""Real images that are enough to tell them."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Bounds measured on the bank's real images; None where there are too few of them."""

    quality: float | None
    least_cosine: float | None
    most_cosine: float | None
    labelled: dict[str, int]
    """Label -> real images that have it."""
    untold: dict[str, str]
    """Gate -> which of its bounds was not asked, and why."""


def measure(bank: MemoryBank, policy: AdmissionPolicy) -> Reference:
    """Measure what the gates of a policy need to know of the bank's real images."""
    real = bank.entries(source="real")
    untold: dict[str, str] = {}
    few = f"{len(real)} real images, {LEAST} needed"

    floor = None
    if "quality" in policy.gates and policy.quality_quantile:
        known = [value for one in real if (value := quality(one, policy.quality_score)) is not None]
        if len(known) < LEAST:
            name = policy.quality_score
            untold["quality"] = f"{len(known)} real images with {name}, {LEAST} needed"
        else:
            floor = float(np.quantile(known, policy.quality_quantile))

    least, most = policy.min_cosine, policy.max_cosine
    if "novelty" in policy.gates and None in (least, most):
        if len(real) < LEAST:
            untold["novelty"] = few
        else:
            cosines = _among(bank, real)
            least = _quantile(cosines, policy.far_quantile) if least is None else least
            most = _quantile(cosines, policy.near_quantile) if most is None else most

    labelled: dict[str, int] = {}
    for one in real:
        if one.emotion is not None:
            labelled[one.emotion] = labelled.get(one.emotion, 0) + 1
    return Reference(floor, least, most, labelled, untold)


def agreement(hits: Sequence[Hit], label: str | None, policy: AdmissionPolicy) -> float | None:
    """Return which share of the nearest real images has a label; None without k or a label."""
    labels = [hit.entry.emotion for hit in hits if hit.entry.emotion is not None]
    if label is None or len(labels) < policy.neighbours:
        return None
    return labels[: policy.neighbours].count(label) / policy.neighbours


def enough(label: str | None, reference: Reference, policy: AdmissionPolicy) -> str | None:
    """Return why k neighbours cannot be asked about a label; None when they can.

    A class of fewer real images than have to agree could never pass.
    """
    needed = math.ceil(policy.neighbours * policy.min_agreement)
    held = reference.labelled.get(label, 0) if label is not None else 0
    if sum(reference.labelled.values()) < policy.neighbours:
        return (
            f"{sum(reference.labelled.values())} labelled real images, {policy.neighbours} needed"
        )
    if held < needed:
        return f"{held} real images of {label}, {needed} needed"
    return None


def _among(bank: MemoryBank, real: Sequence[Entry]) -> np.ndarray:
    """Return the cosine of real images, up to `MOST` of them, to their nearest other."""
    chosen = [
        real[place * len(real) // min(MOST, len(real))].id for place in range(min(MOST, len(real)))
    ]
    found = bank.search(bank.embeddings(chosen), 2, source="real")
    return np.array(
        [
            next(hit.cosine for hit in hits if hit.entry.id != own)
            for own, hits in zip(chosen, found, strict=True)
        ]
    )


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share))
