"""Which generated images may enter the bank: a registry of small pure gates.

A judge that curates its own training data amplifies its own mistakes, so an image needs every gate
and every refusal keeps its reasons. Ref: Ferbach et al. 2024, arXiv 2407.09499.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emosym.errors import UserError, unknown
from memory_bank.bank import MemoryBank
from memory_bank.entry import Candidate, Decision
from memory_bank.index import normalised
from memory_bank.store import check_vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a gate may know beyond the candidate itself."""

    policy: AdmissionPolicy
    confidence_floor: float
    """Lowest confidence among the top quantile of the candidate's class in its pool."""
    nearest_cosine: float
    """Highest cosine to the bank and to what this pool got admitted so far; -1 if neither."""
    held: int
    """Synthetic images of the class in the bank and admitted from this pool so far."""


Gate = Callable[[Candidate, Context], str | None]
"""Returns why it refuses, or None."""


def label_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse an image whose judge sees another emotion than was asked for."""
    if candidate.predicted is None:
        return "no predicted emotion"
    if candidate.emotion is not None and candidate.predicted != candidate.emotion:
        return f"asked for {candidate.emotion}, judged {candidate.predicted}"
    return None


def confidence_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse what is below its own class's top quantile; hard classes keep their share."""
    if candidate.confidence is None:
        return "no confidence"
    if not candidate.confidence >= context.confidence_floor:
        return (
            f"confidence {candidate.confidence:.3f} below {context.confidence_floor:.3f},"
            f" the top {context.policy.top_quantile:.0%} of its class"
        )
    return None


def affect_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse an image judged too far from the wanted valence and arousal, if any was wanted."""
    if candidate.valence is None or candidate.arousal is None:
        return None
    if candidate.predicted_valence is None or candidate.predicted_arousal is None:
        return "no judged valence and arousal"
    error = abs(candidate.predicted_valence - candidate.valence) + abs(
        candidate.predicted_arousal - candidate.arousal
    )
    if not error <= context.policy.max_affect_error:
        return f"valence-arousal error {error:.2f} above {context.policy.max_affect_error:.2f}"
    return None


def quality_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse a flat or non-finite picture."""
    if candidate.contrast is None:
        return "contrast not measured"
    if not math.isfinite(candidate.contrast):
        return "pixels are not finite"
    if candidate.contrast < context.policy.min_contrast:
        return f"contrast {candidate.contrast:.3f} below {context.policy.min_contrast:.3f}"
    return None


def novelty_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse a near copy of what the bank holds or of a better one in the same pool."""
    if not context.nearest_cosine <= context.policy.max_cosine:
        return (
            f"cosine {context.nearest_cosine:.3f} to a known image above"
            f" {context.policy.max_cosine:.3f}"
        )
    return None


def capacity_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse a synthetic image of a class that is full; real images are never limited."""
    if candidate.source == "synthetic" and context.held >= context.policy.capacity_per_class:
        return f"class {candidate.label} holds {context.held} synthetic images already"
    return None


GATES: dict[str, Gate] = {
    "label": label_gate,
    "confidence": confidence_gate,
    "affect": affect_gate,
    "quality": quality_gate,
    "novelty": novelty_gate,
    "capacity": capacity_gate,
}
"""Every gate by name, in the order their reasons are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionPolicy:
    """Thresholds of the gates. Raises `UserError` for a value outside its range."""

    gates: tuple[str, ...] = tuple(GATES)
    """Names from `GATES` that are asked."""
    top_quantile: float = 0.2
    """Share of each class of a pool that is confident enough, in (0, 1]; rounded up, ties pass.

    Ref: EmoSym states the top 20 % (its release accepts all).
    """
    max_affect_error: float = 1.5
    """Highest |ΔV| + |ΔA| between wanted and judged, in units of `affect.PUBLIC`."""
    min_contrast: float = 0.02
    """Lowest standard deviation of the luma on [0, 1]."""
    max_cosine: float = 0.95
    """Highest cosine to an image known already, in [-1, 1]; 1 admits all but exact copies."""
    capacity_per_class: int = 1000
    """Most synthetic images of a class in the bank."""

    def __post_init__(self) -> None:
        for name in self.gates:
            if name not in GATES:
                raise unknown("gate", name, GATES)
        checks = (
            ("top_quantile", 0 < self.top_quantile <= 1, "a share in (0, 1]"),
            ("max_affect_error", self.max_affect_error >= 0, "at least 0"),
            ("min_contrast", 0 <= self.min_contrast <= 0.5, "a value in [0, 0.5]"),
            ("max_cosine", -1 <= self.max_cosine <= 1, "a value in [-1, 1]"),
            ("capacity_per_class", self.capacity_per_class >= 0, "at least 0"),
        )
        for name, good, expected in checks:
            if not good:
                raise UserError(
                    f"admission policy: {name}", got=getattr(self, name), expected=expected
                )


def admit(
    candidates: Sequence[Candidate], bank: MemoryBank, policy: AdmissionPolicy
) -> list[Decision]:
    """Decide on a pool; one decision a candidate, in their order, with all its refusals named.

    The most confident are decided first, so of two near copies the better one stays. Nothing is
    written: hand the decisions to `MemoryBank.record`. Raises `UserError` for an embedding that
    is not of this bank's dimension; one that is not finite is refused.
    """
    floors = _confidence_floors(candidates, policy.top_quantile)
    held = Counter(bank.stats()["by_emotion_synthetic"])
    vectors, known = _vectors(candidates, bank)
    accepted: list[int] = []
    decisions: dict[int, Decision] = {}
    for place in sorted(range(len(candidates)), key=lambda i: (-_confidence(candidates[i]), i)):
        candidate, vector = candidates[place], vectors[place]
        if vector is None:
            decisions[place] = Decision(
                candidate=candidate, admitted=False, reason="embedding is not finite or zero"
            )
            continue
        context = Context(
            policy=policy,
            confidence_floor=floors[candidate.label],
            nearest_cosine=max([known[place], *(float(vectors[i] @ vector) for i in accepted)]),
            held=held[candidate.label],
        )
        reasons = [GATES[name](candidate, context) for name in policy.gates]
        refusals = [reason for reason in reasons if reason is not None]
        if not refusals:
            accepted.append(place)
            held[candidate.label] += candidate.source == "synthetic"
        decisions[place] = Decision(
            candidate=candidate,
            admitted=not refusals,
            reason="; ".join(refusals) or f"passed {', '.join(policy.gates) or 'no gates'}",
        )
    return [decisions[place] for place in range(len(candidates))]


def _confidence(candidate: Candidate) -> float:
    """Return the confidence to rank by; one that is missing or NaN ranks last."""
    value = candidate.confidence
    return -math.inf if value is None or math.isnan(value) else value


def _confidence_floors(candidates: Sequence[Candidate], quantile: float) -> dict[str | None, float]:
    """Return for each class the confidence of its ceil(quantile · n)-th best candidate."""
    pools: dict[str | None, list[float]] = {}
    for candidate in candidates:
        pools.setdefault(candidate.label, []).append(_confidence(candidate))
    return {
        label: sorted(pool, reverse=True)[math.ceil(quantile * len(pool) - 1e-9) - 1]
        for label, pool in pools.items()
    }


def _vectors(
    candidates: Sequence[Candidate], bank: MemoryBank
) -> tuple[list[np.ndarray | None], list[float]]:
    """Return unit vectors [D] (None where there is no direction) and cosines to the bank."""
    raw = [np.asarray(candidate.embedding) for candidate in candidates]
    usable = [
        place
        for place, vector in enumerate(raw)
        if vector.shape != (bank.dim,) or (np.isfinite(vector).all() and vector.any())
    ]
    vectors: list[np.ndarray | None] = [None] * len(raw)
    known = [-1.0] * len(raw)
    if usable:
        rows = np.stack([check_vectors(raw[place], bank.dim) for place in usable])
        for place, vector, cosine in zip(
            usable, normalised(rows), bank.nearest_cosine(rows), strict=True
        ):
            vectors[place], known[place] = vector, float(cosine)
    return vectors, known
