"""Admission gates and their thresholds.

A gate is a small pure function that accepts a generated image or returns a reason for refusal. An
image must pass every gate of the policy, because a judge that selects its own training data
amplifies its own errors. All reasons of a refusal are stored.
Ref: Ferbach et al. 2024, arXiv 2407.09499.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from emosym.errors import UserError, unknown
from emosym.plugins import Registry, check_function
from memory_bank.admission.replacement import REPLACEMENTS
from memory_bank.store.entry import Candidate, Provenance


@dataclass(slots=True, kw_only=True)
class AdmissionPolicy:
    """All thresholds of admission: of the gates, of replacement and of the stopping rule.

    The defaults are used by `emosym bank add --gated` and by the training phase `remember`.
    Raises `UserError` for a value outside its range.
    """

    gates: list[str] = field(default_factory=lambda: list(GATES))
    """Names of the gates to apply, each from `GATES` and at most once."""
    top_quantile: float = 0.2
    """Share, in (0, 1], of each emotion's candidates that may be admitted, by judge confidence. The
    count is rounded up and ties pass. Ref: EmoSym states 20 %, its release accepts all."""
    max_affect_error: float = 1.0
    """Largest |ΔV| + |ΔA| between requested and judged affect, at least 0, in units of [-3, 3]."""
    min_contrast: float = 0.02
    """Lowest standard deviation of the luma, in [0, 0.5]; below it an image counts as flat."""
    quality_score: str = "contrast"
    """Score compared by `quality_quantile`: `contrast`, or the name of one of an image's scores."""
    quality_quantile: float = 0.0
    """Quantile, in [0, 1], of the real images' quality score that an image must reach."""
    near_copy_quantile: float = 0.95
    """Quantile, in [0, 1], of the cosines between each real image and its nearest real image. An
    image whose cosine to any image of the bank is higher is a near copy. A quantile fits every
    embedder; a fixed cosine fits only one."""
    outlier_quantile: float = 0.01
    """Lower quantile of the same cosines, at most `near_copy_quantile`. An image whose highest
    cosine to a real image is lower is an outlier."""
    max_cosine: float | None = None
    """Fixed cosine, in [-1, 1], that replaces the one of `near_copy_quantile`."""
    min_cosine: float | None = None
    """Fixed cosine, in [-1, 1], that replaces the one of `outlier_quantile`."""
    copy_bits: int = 6
    """Two images are copies if at most this many of their 64 fingerprint bits differ, in [-1, 64];
    -1 turns the comparison off."""
    neighbours: int = 10
    """Nearest real images whose labels are compared, at least 1."""
    min_agreement: float = 0.6
    """Share, in [0, 1], of these neighbours that must have the requested emotion."""
    capacity_per_class: int = 256
    """Most synthetic images of each emotion in the bank, at least 0."""
    replacement: Literal[
        "none", "reservoir", "lowest_confidence", "random", "highest_confidence"
    ] = "reservoir"
    """Which image is evicted for a new one when an emotion is full, see `REPLACEMENTS`.
    highest_confidence reproduces the EmoSym release, for comparison: each admitted image evicts the
    most confident image of the bank, INCLUDING REAL ONES."""
    delay: int = 0
    """Training steps, at least 0, between the generation of an image and its admission."""
    max_diversity_loss: float = 0.1
    """Admission stops if the Vendi score of synthetic images is lower by more than this share, in
    [0, 1], than that of as many real images; 1 never stops it."""
    min_admission_rate: float = 0.01
    """Admission stops if a smaller share, in [0, 1], of the last 256 candidates was admitted; 0
    never stops it."""
    max_admission_rate: float = 0.6
    """Admission stops if a larger share, in [0, 1], of the last 256 candidates was admitted; 1
    never stops it."""

    def __post_init__(self) -> None:
        for name in self.gates:
            GATES.look_up(name)
        if twice := sorted({gate for gate in self.gates if self.gates.count(gate) > 1}):
            raise UserError(
                f"the admission policy names the gate {twice[0]} twice", fix="name it once"
            )
        if self.replacement not in REPLACEMENTS:
            raise unknown("replacement", self.replacement, REPLACEMENTS)
        share, cosine = "a share in [0, 1]", "a value in [-1, 1]"
        low, high = self.min_cosine, self.max_cosine
        checks = (
            ("top_quantile", 0 < self.top_quantile <= 1, "a share in (0, 1]"),
            ("max_affect_error", self.max_affect_error >= 0, "at least 0"),
            ("min_contrast", 0 <= self.min_contrast <= 0.5, "a value in [0, 0.5]"),
            ("quality_quantile", 0 <= self.quality_quantile <= 1, share),
            ("near_copy_quantile", 0 <= self.near_copy_quantile <= 1, share),
            (
                "outlier_quantile",
                0 <= self.outlier_quantile <= self.near_copy_quantile,
                "a share of at most near_copy_quantile",
            ),
            ("max_cosine", high is None or -1 <= high <= 1, cosine),
            ("min_cosine", low is None or -1 <= low <= 1, cosine),
            ("min_cosine", low is None or high is None or low <= high, "at most max_cosine"),
            ("copy_bits", -1 <= self.copy_bits <= 64, "a number of bits in [-1, 64]"),
            ("neighbours", self.neighbours >= 1, "at least 1"),
            ("min_agreement", 0 <= self.min_agreement <= 1, share),
            ("capacity_per_class", self.capacity_per_class >= 0, "at least 0"),
            ("delay", self.delay >= 0, "at least 0"),
            ("max_diversity_loss", 0 <= self.max_diversity_loss <= 1, share),
            ("max_admission_rate", 0 <= self.max_admission_rate <= 1, share),
            (
                "min_admission_rate",
                0 <= self.min_admission_rate <= self.max_admission_rate,
                "a share of at most max_admission_rate",
            ),
        )
        for name, good, expected in checks:
            if not good:
                raise UserError(
                    f"admission policy: {name}", got=getattr(self, name), expected=expected
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Facts about a candidate's surroundings that the gates compare with the policy.

    None: the bank holds too few real images to measure the value, and the gate passes.
    """

    policy: AdmissionPolicy
    step: int | None
    """Current training step; None outside training."""
    confidence_floor: float
    """Lowest confidence within the top quantile of the candidate's emotion in its pool."""
    quality_floor: float | None
    """Lowest accepted value of `policy.quality_score`."""
    nearest_cosine: float
    """Highest cosine to the bank's images and to those admitted so far from this pool; -1 if there
    are none."""
    max_cosine: float | None
    """Highest accepted value of `nearest_cosine`."""
    real_cosine: float
    """Highest cosine to the bank's real images; -1 if there are none."""
    min_cosine: float | None
    """Lowest accepted value of `real_cosine`."""
    nearest_bits: int
    """Differing bits to the most similar fingerprint of the bank's images and of those admitted so
    far from this pool; 64 if there are none."""
    agreement: float | None
    """Share of the nearest real images that have the candidate's label."""
    full: bool
    """The emotion is at capacity and `policy.replacement` evicts no image for this candidate."""


Gate = Callable[[Candidate, Context], str | None]
"""Returns the reason for refusal, or None to pass."""


def label_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse an image that the judge assigns to another emotion than the requested one."""
    if candidate.predicted is None:
        return "no predicted emotion"
    if candidate.emotion is not None and candidate.predicted != candidate.emotion:
        return f"requested {candidate.emotion}, judged {candidate.predicted}"
    return None


def confidence_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse an image below the top confidence quantile of its own emotion.

    The quantile is per emotion, so that difficult emotions keep their share.
    """
    if candidate.confidence is None:
        return "no confidence"
    if not candidate.confidence >= context.confidence_floor:
        return (
            f"confidence {candidate.confidence:.3f} below {context.confidence_floor:.3f},"
            f" the top {context.policy.top_quantile:.0%} of its class"
        )
    return None


def affect_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse an image judged too far from the requested valence and arousal, if there are any."""
    if candidate.affect is None:
        return None
    if candidate.predicted_affect is None:
        return "no judged valence and arousal"
    error = candidate.predicted_affect.distance(candidate.affect)
    if not error <= context.policy.max_affect_error:  # NaN is refused
        return f"valence-arousal error {error:.2f} above {context.policy.max_affect_error:.2f}"
    return None


def quality_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse a flat image, one with non-finite pixels, and one below the quality quantile."""
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
    """Refuse an embedding too near to a known image, or too far from every real image."""
    if context.max_cosine is not None and not context.nearest_cosine <= context.max_cosine:
        return (
            f"cosine {context.nearest_cosine:.3f} to a known image above {context.max_cosine:.3f}"
        )
    if context.min_cosine is not None and not context.real_cosine >= context.min_cosine:
        return (
            f"cosine {context.real_cosine:.3f} to the nearest real image below"
            f" {context.min_cosine:.3f}"
        )
    return None


def copy_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse a near copy by its pixels, independently of the embedder."""
    if candidate.fingerprint is None:
        return "no fingerprint"
    if context.nearest_bits <= context.policy.copy_bits:
        return (
            f"fingerprint differs in {context.nearest_bits} bits from that of a known image,"
            f" copies differ in at most {context.policy.copy_bits}"
        )
    return None


def agreement_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse an image whose nearest real images have other labels. It needs no trained head."""
    if context.agreement is None or context.agreement >= context.policy.min_agreement:
        return None
    return (
        f"{context.agreement:.0%} of the {context.policy.neighbours} nearest real images are"
        f" {candidate.label}, below {context.policy.min_agreement:.0%}"
    )


def delay_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse an image generated too recently, so that a collapsing generator is noticed first."""
    if candidate.step is None or context.step is None:
        return None
    due = candidate.step + context.policy.delay
    if context.step < due:
        return f"generated at step {candidate.step}, may be admitted from step {due} on"
    return None


def capacity_gate(candidate: Candidate, context: Context) -> str | None:
    """Refuse a synthetic image when its emotion is at capacity; real images have no limit."""
    if candidate.source == "synthetic" and context.full:
        return (
            f"class {candidate.label} is full, and replacement {context.policy.replacement} evicts"
            " no image for it"
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
    lambda name, gate: check_function(f"the gate {name!r}", gate, 2),
)
"""Gates by name; reasons of a refusal are listed in this order."""


def quality(image: Provenance, score: str) -> float | None:
    """Return an image's contrast or one of its named scores; None if it has no such score."""
    return image.contrast if score == "contrast" else image.scores.get(score)
