"""How many different images there are, and the breaker that stops admission when too few are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from emosym.errors import UserError
from memory_bank.bank import MemoryBank
from memory_bank.store.entry import Provenance

LEAST, MOST = 64, 256
"""Images of each source that are compared: with fewer nothing is told."""
WINDOW = 256
"""Candidates, the last ones, in whole pools, that the admission rate is about: with fewer nothing
is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When admission stops. Raises `UserError` for a value outside its range."""

    max_loss: float = 0.1
    """Share of the real images' Vendi score that the synthetic ones may miss; 1 never stops."""
    admission_rate: tuple[float, float] = (0.01, 0.6)
    """Band of the share of candidates that enter; (0, 1) never stops."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_loss <= 1:
            raise UserError(
                "the loss of diversity", got=self.max_loss, expected="a share in [0, 1]"
            )
        low, high = self.admission_rate
        if not 0 <= low <= high <= 1:
            raise UserError(
                "the band of the admission rate",
                got=f"{low} to {high}",
                expected="two shares in [0, 1], the lower first",
            )

    def stopped(self, bank: MemoryBank) -> str | None:
        """Return why nothing more may enter the bank as it is; None while all is well.

        It follows from the bank alone: who takes the copies out, or rolls back, goes on.
        """
        return self._rate(bank) or self._diversity(bank)

    def _rate(self, bank: MemoryBank) -> str | None:
        entered = Counter(one.added for one in bank.entries(source="synthetic") if _drawn(one))
        refused = Counter(one.version for one in bank.refusals() if _drawn(one))
        last, admitted = 0, 0
        for version in sorted(entered | refused, reverse=True):  # whole pools, the newest first
            last += entered[version] + refused[version]
            admitted += entered[version]
            if last >= WINDOW:
                break
        low, high = self.admission_rate
        if last < WINDOW or low <= admitted / last <= high:
            return None
        return f"{admitted} of the last {last} candidates entered, outside {low:.0%} to {high:.0%}"

    def _diversity(self, bank: MemoryBank) -> str | None:
        found = diversity(bank)
        if found is None or found[1] >= (1 - self.max_loss) * found[0]:
            return None
        return (
            f"synthetic images have a Vendi score of {found[1]:.1f}, more than {self.max_loss:.0%}"
            f" below the {found[0]:.1f} of as many real ones"
        )


def diversity(bank: MemoryBank) -> tuple[float, float] | None:
    """Return the Vendi scores of real and of synthetic images, as many of each; None if too few.

    Vectors are taken from the mean of the real ones: where all cosines are near 1, as those of a
    classifier's states, their differences would not show.
    """
    ids = {source: [one.id for one in bank.entries(source=source)] for source in _SOURCES}
    count = min(MOST, *map(len, ids.values()))
    if count < LEAST:
        return None
    real, synthetic = (bank.embeddings(_some(ids[source], count)) for source in _SOURCES)
    centre = real.mean(0)
    return vendi(real - centre), vendi(synthetic - centre)


def vendi(vectors: np.ndarray) -> float:
    """Return how many different directions [N, D] hold, from 1 (copies) to N (all orthogonal).

    exp of the entropy of the eigenvalues of K / N, K the cosines of all pairs: its effective rank;
    NaN for a vector without direction. Ref: Friedman & Dieng 2023, arXiv 2210.02410, q = 1.
    """
    rows = vectors.astype(np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    shares = np.linalg.svd(units, compute_uv=False) ** 2 / len(units)
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))


_SOURCES = ("real", "synthetic")


def _drawn(one: Provenance) -> bool:
    """Whether a phase of training offered it, not a person."""
    return one.source == "synthetic" and one.step is not None


def _some(ids: list[int], count: int) -> list[int]:
    """Return `count` of them, always the same: any order may be in step with what they show."""
    places = np.random.default_rng(count).choice(len(ids), count, replace=False)
    return [ids[place] for place in np.sort(places)]
