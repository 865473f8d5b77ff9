"""The gates between a generated image and the bank: small pure functions, each with its reason.

A judge that curates its own training data amplifies its own mistakes, so an image needs every gate
and every refusal keeps its reasons. Ref: Ferbach et al. 2024, arXiv 2407.09499.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emosym.plugins import Registry
from memory_bank.store.entry import Candidate, Provenance

if TYPE_CHECKING:
    from memory_bank.admission.policy import AdmissionPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a gate may know beyond the candidate itself. None: the bank cannot tell."""

    policy: AdmissionPolicy
    step: int | None
    """The training step it is."""
    confidence_floor: float
    """Lowest confidence among the top quantile of the candidate's class in its pool."""
    quality_floor: float | None
    """Lowest value of `policy.quality_score`."""
    nearest_cosine: float
    """Highest cosine to the bank and to what this pool got admitted so far; -1 if neither."""
    most_cosine: float | None
    """Where near copies begin."""
    real_cosine: float
    """Highest cosine to the bank's real images."""
    least_cosine: float | None
    """Where the manifold of the real images ends."""
    nearest_bits: int
    """Bits that tell it from the likest fingerprint of the bank and of what this pool got admitted
    so far; 64 if neither has one."""
    agreement: float | None
    """Share of the nearest real images that have the candidate's label."""
    full: bool
    """No room for its class, and nobody leaves for it."""


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
    """Refuse a flat or non-finite picture, and one of less quality than most real ones."""
    if candidate.contrast is None:
        return "contrast not measured"
    if not math.isfinite(candidate.contrast):
        return "pixels are not finite"
    if candidate.contrast < context.policy.min_contrast:
        return f"contrast {candidate.contrast:.3f} below {context.policy.min_contrast:.3f}"
    if context.quality_floor is None:
        return None
    name, value = context.policy.quality_score, quality(candidate, context.policy.quality_score)
    if value is None:
        return f"no score {name}"
    if not value >= context.quality_floor:
        return (
            f"{name} {value:.3f} below {context.quality_floor:.3f},"
            f" the lowest {context.policy.quality_quantile:.0%} of the real images"
        )
    return None


def novelty_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse a near copy of what is known, and what is far from everything real."""
    if context.most_cosine is not None and not context.nearest_cosine <= context.most_cosine:
        return (
            f"cosine {context.nearest_cosine:.3f} to a known image above {context.most_cosine:.3f}"
        )
    if context.least_cosine is not None and not context.real_cosine >= context.least_cosine:
        return (
            f"cosine {context.real_cosine:.3f} to the nearest real image below"
            f" {context.least_cosine:.3f}"
        )
    return None


def copy_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse a picture that looks like a known one, whatever the embedder says."""
    if candidate.fingerprint is None:
        return "no fingerprint"
    if context.nearest_bits <= context.policy.copy_bits:
        return (
            f"fingerprint {context.nearest_bits} bits from a known image's,"
            f" copies are within {context.policy.copy_bits}"
        )
    return None


def agreement_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse an image among real images of other emotions: a second judge, who needs no head."""
    if context.agreement is None or context.agreement >= context.policy.min_agreement:
        return None
    return (
        f"{context.agreement:.0%} of the {context.policy.neighbours} nearest real images are"
        f" {candidate.label}, below {context.policy.min_agreement:.0%}"
    )


def delay_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse what was drawn just now, so that a collapsing generator cannot feed itself at once."""
    if candidate.step is None or context.step is None:
        return None
    due = candidate.step + context.policy.delay
    if context.step < due:
        return f"drawn at step {candidate.step}, may enter from step {due} on"
    return None


def capacity_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse a synthetic image of a full class that nobody leaves; real ones are never limited."""
    if candidate.source == "synthetic" and context.full:
        return (
            f"class {candidate.label} is full, and {context.policy.replacement} keeps what it holds"
        )
    return None


GATES: Registry[Gate] = Registry(
    "gate",
    {
        "label": label_gate,
        "confidence": confidence_gate,
        "affect": affect_gate,
        "quality": quality_gate,
        "novelty": novelty_gate,
        "copy": copy_gate,
        "agreement": agreement_gate,
        "delay": delay_gate,
        "capacity": capacity_gate,
    },
)
"""Every gate by name, in the order their reasons are told."""


def quality(image: Provenance, score: str) -> float | None:
    """Return an image's contrast, or one of its named scores; None where it is not known."""
    return image.contrast if score == "contrast" else image.scores.get(score)
