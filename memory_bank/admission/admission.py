"""Admission: decide which candidates of a pool the bank takes, and which entries they replace."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memory_bank.admission.gates import GATES, AdmissionPolicy, Context
from memory_bank.admission.reference import agreement, agreement_unknown, measure
from memory_bank.admission.replacement import PUBLISHED, REPLACEMENTS, confidence
from memory_bank.bank import MemoryBank
from memory_bank.index.index import normalised
from memory_bank.search import Hit
from memory_bank.store.entry import Candidate, Decision, Entry
from memory_bank.store.vectors import check_vectors


@dataclass(frozen=True, slots=True)
class AdmissionResult:
    """Decisions on a pool; pass both fields to `MemoryBank.record`."""

    decisions: list[Decision]
    """One per candidate, in their order."""
    evict: list[int]
    """Ids of the entries that admitted candidates replace."""
    unchecked: dict[str, str]
    """Gate -> what some of the pool, or the bank, lacks for it; the gate, or a threshold of it, was
    not applied there."""


def admit(
    candidates: Sequence[Candidate],
    bank: MemoryBank,
    policy: AdmissionPolicy,
    *,
    step: int | None = None,
) -> AdmissionResult:
    """Decide on a pool; a refusal lists the reasons of all gates that refuse.

    Candidates are decided in descending order of confidence, so that of two near copies the more
    confident one is admitted. A threshold that needs more real images than the bank holds is
    skipped, and so is a comparison with a request that a candidate does not have; the reason of an
    admission says so. Nothing is written. The result is a function of
    the arguments and the bank's version.

    Args:
        candidates: the pool; the confidence quantile is per emotion within it.
        bank: to compare with.
        policy: thresholds.
        step: current training step, for `policy.delay`; None skips the delay.

    Raises:
        UserError: an embedding of another dimension than the bank's. One that is not finite, or
            zero, is refused instead.
    """
    contents = _Contents(bank, policy)
    floors = _confidence_floors(candidates, policy.top_quantile)
    vectors, nearest, neighbours = _neighbours(candidates, bank, policy.neighbours)
    decisions: dict[int, Decision] = {}
    accepted: list[np.ndarray] = []
    lacks: dict[str, list[str]] = {}
    for place in sorted(range(len(candidates)), key=lambda i: (-confidence(candidates[i]), i)):
        candidate, vector = candidates[place], vectors[place]
        if vector is None:
            decisions[place] = Decision(
                candidate=candidate, admitted=False, reason="embedding is not finite or zero"
            )
            continue
        unchecked = contents.unchecked(candidate)
        for gate, why in unchecked.items():
            lacks.setdefault(gate, []).append(why)
        full, victim = contents.room_for(candidate)
        hits = neighbours[place]
        context = Context(
            policy=policy,
            step=step,
            confidence_floor=floors[candidate.label],
            quality_floor=contents.reference.min_quality,
            nearest_cosine=max([nearest[place], *(float(other @ vector) for other in accepted)]),
            max_cosine=contents.reference.max_cosine,
            real_cosine=hits[0].cosine if hits else -1.0,
            min_cosine=contents.reference.min_cosine,
            nearest_bits=contents.nearest_bits(candidate.fingerprint),
            agreement=contents.agreement(hits, candidate.label),
            full=full and victim is None,
        )
        reasons = [GATES[name](candidate, context) for name in policy.gates]
        refusals = [reason for reason in reasons if reason is not None]
        reason = "; ".join(refusals) or _passed(policy, unchecked)
        if not refusals:
            accepted.append(vector)
            contents.take(candidate, victim)
            if victim is not None:
                reason += f"; replaces entry {victim.id}"
        decisions[place] = Decision(candidate=candidate, admitted=not refusals, reason=reason)
    return AdmissionResult(
        decisions=[decisions[place] for place in range(len(candidates))],
        evict=contents.evicted,
        unchecked={
            gate: _counted(lacks[gate], len(candidates)) for gate in policy.gates if gate in lacks
        },
    )


class _Contents:
    """Contents of the bank, together with the candidates admitted so far."""

    def __init__(self, bank: MemoryBank, policy: AdmissionPolicy) -> None:
        self.policy = policy
        self.reference = measure(bank, policy)
        self.evicted: list[int] = []
        self._rng = np.random.default_rng(bank.version)
        entries = bank.entries()
        self._fingerprints = [one.fingerprint for one in entries if one.fingerprint is not None]
        self._published = policy.replacement == PUBLISHED
        self._held: dict[str | None, list[Entry]] = {}
        for one in entries:
            if self._published or one.source == "synthetic":
                self._held.setdefault(self._class(one), []).append(one)
        self._new: dict[str | None, int] = {}

    def room_for(self, candidate: Candidate) -> tuple[bool, Entry | None]:
        """Return whether the candidate's emotion is full, and the entry it would replace."""
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
        """Count an admitted candidate as held, and its victim as evicted."""
        name = self._class(candidate)
        if candidate.source == "synthetic":
            self._new[name] = self._new.get(name, 0) + 1
        if victim is not None:
            self._held[name].remove(victim)
            self.evicted.append(victim.id)
        if candidate.fingerprint is not None:
            self._fingerprints.append(candidate.fingerprint)

    def nearest_bits(self, fingerprint: int | None) -> int:
        """Return the fewest bits by which a fingerprint differs from a known one; 64 without."""
        if fingerprint is None or not self._fingerprints:
            return 64
        differing = np.array(self._fingerprints, np.int64) ^ np.int64(fingerprint)
        return int(np.bitwise_count(differing.view(np.uint64)).min())

    def agreement(self, hits: Sequence[Hit], label: str | None) -> float | None:
        """Return the share of the nearest real images that have the label; None if unknown."""
        if agreement_unknown(label, self.reference, self.policy) is not None:
            return None
        return agreement(hits, label, self.policy)

    def unchecked(self, candidate: Candidate) -> dict[str, str]:
        """Return gate of the policy -> what it lacks to compare the candidate in full."""
        found: dict[str, str | None] = dict(self.reference.skipped)
        if candidate.emotion is None:
            found["label"] = "no emotion requested"
        if candidate.affect is None:
            found["affect"] = "no valence and arousal requested"
        found["agreement"] = agreement_unknown(candidate.label, self.reference, self.policy)
        return {gate: why for gate in self.policy.gates if (why := found.get(gate)) is not None}

    def _class(self, image: Candidate | Entry) -> str | None:
        return None if self._published else image.label


def _passed(policy: AdmissionPolicy, unchecked: Mapping[str, str]) -> str:
    """Return the reason of an admission: the gates passed, and what was not compared."""
    reason = f"passed {', '.join(policy.gates) or 'no gates'}"
    if unchecked:
        reason += "; not checked in full: "
        reason += ", ".join(f"{gate} ({why})" for gate, why in unchecked.items())
    return reason


def _counted(reasons: Sequence[str], total: int) -> str:
    """Return the different reasons, each with its number of images unless all have it."""
    counts = Counter(reasons)
    return ", ".join(
        why if count == total else f"{why} for {count} of {total} images"
        for why, count in counts.items()
    )


def _confidence_floors(candidates: Iterable[Candidate], quantile: float) -> dict[str | None, float]:
    """Return per label the confidence of its ceil(quantile * n)-th most confident candidate."""
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
    """Return for each candidate its unit vector, highest cosine and k nearest real images.

    A vector [D] is None when it is not finite or zero; the cosine is -1 then.
    """
    raw = [np.asarray(candidate.embedding) for candidate in candidates]
    usable = [
        place
        for place, vector in enumerate(raw)
        if vector.shape != (bank.dim,) or (np.isfinite(vector).all() and vector.any())
    ]
    vectors: list[np.ndarray | None] = [None] * len(raw)
    nearest = [-1.0] * len(raw)
    hits: list[list[Hit]] = [[] for _ in raw]
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
            vectors[place], nearest[place], hits[place] = vector, float(cosine), near
    return vectors, nearest, hits
