"""Who enters the bank and who leaves it: a pool before the gates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from memory_bank.admission.gates import GATES, Context
from memory_bank.admission.policy import AdmissionPolicy
from memory_bank.admission.reference import agreement, enough, measure
from memory_bank.admission.replacement import PUBLISHED, REPLACEMENTS, confidence
from memory_bank.bank import Hit, MemoryBank
from memory_bank.index.index import normalised
from memory_bank.store.entry import Candidate, Decision, Entry
from memory_bank.store.vectors import check_vectors


@dataclass(frozen=True, slots=True)
class AdmissionResult:
    """What becomes of a pool: hand both to `MemoryBank.record`."""

    decisions: list[Decision]
    """One a candidate, in their order."""
    evict: list[int]
    """Ids of the entries that leave for admitted ones."""


def admit(
    candidates: Sequence[Candidate],
    bank: MemoryBank,
    policy: AdmissionPolicy,
    *,
    step: int | None = None,
) -> AdmissionResult:
    """Decide on a pool, with all refusals of a candidate named.

    The most confident are decided first, so of two near copies the better one stays. Where the bank
    holds too few real images to tell a bound, the bound is not asked, and the reason of who was
    admitted says so. Nothing is written, and the same bank gives the same ruling.

    Args:
        candidates: the pool; the confidence quantile is of each class in it.
        bank: to compare with.
        policy: thresholds.
        step: the training step it is, for `policy.delay`; None asks for no delay.

    Raises:
        UserError: an embedding that is not of this bank's dimension; one that is not finite is
            refused.
    """
    known = _Known(bank, policy)
    floors = _confidence_floors(candidates, policy.top_quantile)
    vectors, nearest, neighbours = _neighbours(candidates, bank, policy.neighbours)
    decisions: dict[int, Decision] = {}
    accepted: list[int] = []
    for place in sorted(range(len(candidates)), key=lambda i: (-confidence(candidates[i]), i)):
        candidate, vector = candidates[place], vectors[place]
        if vector is None:
            decisions[place] = Decision(
                candidate=candidate, admitted=False, reason="embedding is not finite or zero"
            )
            continue
        full, victim = known.room_for(candidate)
        hits = neighbours[place]
        context = Context(
            policy=policy,
            step=step,
            confidence_floor=floors[candidate.label],
            quality_floor=known.reference.quality,
            nearest_cosine=max([nearest[place], *(float(vectors[i] @ vector) for i in accepted)]),
            most_cosine=known.reference.most_cosine,
            real_cosine=hits[0].cosine if hits else -1.0,
            least_cosine=known.reference.least_cosine,
            nearest_bits=known.nearest_bits(candidate.fingerprint),
            agreement=known.agreement(hits, candidate.label),
            full=full and victim is None,
        )
        reasons = [GATES[name](candidate, context) for name in policy.gates]
        refusals = [reason for reason in reasons if reason is not None]
        reason = "; ".join(refusals) or known.passed(candidate.label)
        if not refusals:
            accepted.append(place)
            known.take(candidate, victim)
            if victim is not None:
                reason += f"; replaces entry {victim.id}"
        decisions[place] = Decision(candidate=candidate, admitted=not refusals, reason=reason)
    return AdmissionResult([decisions[place] for place in range(len(candidates))], known.evicted)


class _Known:
    """What the bank holds, and what of a pool it is about to hold."""

    def __init__(self, bank: MemoryBank, policy: AdmissionPolicy) -> None:
        self.policy = policy
        self.reference = measure(bank, policy)
        self.evicted: list[int] = []
        self._rng = np.random.default_rng(bank.version)
        entries = bank.entries()
        self._bits = [one.fingerprint for one in entries if one.fingerprint is not None]
        self._published = policy.replacement == PUBLISHED
        self._held: dict[str | None, list[Entry]] = {}
        for one in entries:
            if self._published or one.source == "synthetic":
                self._held.setdefault(self._class(one), []).append(one)
        self._new: dict[str | None, int] = {}

    def room_for(self, candidate: Candidate) -> tuple[bool, Entry | None]:
        """Return whether the candidate's class is full, and who would leave it."""
        if candidate.source != "synthetic":
            return False, None
        name = self._class(candidate)
        held = self._held.get(name, [])
        if not self._published and (
            len(held) + self._new.get(name, 0) < self.policy.capacity_per_class
        ):
            return False, None
        return True, REPLACEMENTS[self.policy.replacement](held, candidate, self._rng)

    def take(self, candidate: Candidate, victim: Entry | None) -> None:
        """Count an admitted candidate in, and out who leaves for it; copies of it are known now."""
        name = self._class(candidate)
        if candidate.source == "synthetic":
            self._new[name] = self._new.get(name, 0) + 1
        if victim is not None:
            self._held[name].remove(victim)
            self.evicted.append(victim.id)
        if candidate.fingerprint is not None:
            self._bits.append(candidate.fingerprint)

    def nearest_bits(self, fingerprint: int | None) -> int:
        """Return in how many bits a fingerprint differs from the likest; 64 without one."""
        if fingerprint is None or not self._bits:
            return 64
        differing = np.array(self._bits, np.int64) ^ np.int64(fingerprint)
        return int(np.bitwise_count(differing.view(np.uint64)).min())

    def agreement(self, hits: Sequence[Hit], label: str | None) -> float | None:
        """Return which share of the nearest real images has the label; None if untold."""
        if enough(label, self.reference, self.policy) is not None:
            return None
        return agreement(hits, label, self.policy)

    def passed(self, label: str | None) -> str:
        """Return the reason of an admission: the gates passed, and what could not be asked."""
        untold = dict(self.reference.untold)
        if "agreement" in self.policy.gates and (why := enough(label, self.reference, self.policy)):
            untold["agreement"] = why
        told = f"passed {', '.join(self.policy.gates) or 'no gates'}"
        if untold:
            told += "; not asked in full: "
            told += ", ".join(f"{gate} ({why})" for gate, why in untold.items())
        return told

    def _class(self, image: Candidate | Entry) -> str | None:
        return None if self._published else image.label


def _confidence_floors(candidates: Iterable[Candidate], quantile: float) -> dict[str | None, float]:
    """Return for each class the confidence of its ceil(quantile · n)-th best candidate."""
    pools: dict[str | None, list[float]] = {}
    for candidate in candidates:
        pools.setdefault(candidate.label, []).append(confidence(candidate))
    return {
        label: sorted(pool, reverse=True)[math.ceil(quantile * len(pool) - 1e-9) - 1]
        for label, pool in pools.items()
    }


def _neighbours(
    candidates: Sequence[Candidate], bank: MemoryBank, k: int
) -> tuple[list[np.ndarray | None], list[float], list[list[Hit]]]:
    """Return unit vectors [D] (None without a direction), cosines to the bank, real neighbours."""
    raw = [np.asarray(candidate.embedding) for candidate in candidates]
    usable = [
        place
        for place, vector in enumerate(raw)
        if vector.shape != (bank.dim,) or (np.isfinite(vector).all() and vector.any())
    ]
    vectors: list[np.ndarray | None] = [None] * len(raw)
    known, hits = [-1.0] * len(raw), [[] for _ in raw]
    if usable:
        rows = np.stack([check_vectors(raw[place], bank.dim) for place in usable])
        found = zip(
            usable,
            normalised(rows),
            bank.nearest_cosine(rows),
            bank.search(rows, k, source="real"),
            strict=True,
        )
        for place, vector, cosine, near in found:
            vectors[place], known[place], hits[place] = vector, float(cosine), near
    return vectors, known, hits
