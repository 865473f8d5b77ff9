"""What the bank asks of an image before it may enter: the thresholds of the gates."""

from __future__ import annotations

from dataclasses import dataclass, field

from emosym.errors import UserError, unknown
from memory_bank.admission.gates import GATES
from memory_bank.admission.replacement import REPLACEMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionPolicy:
    """Thresholds of the gates, and who leaves for whom. Raises `UserError` out of range."""

    gates: tuple[str, ...] = field(default_factory=lambda: tuple(GATES))
    """Names from `GATES` that are asked."""
    top_quantile: float = 0.2
    """Share of each class of a pool that is confident enough, in (0, 1]; rounded up, ties pass.

    Ref: EmoSym states the top 20 % (its release accepts all).
    """
    max_affect_error: float = 1.5
    """Highest |ΔV| + |ΔA| between wanted and judged, in units of `affect.PUBLIC`."""
    min_contrast: float = 0.02
    """Lowest standard deviation of the luma on [0, 1]."""
    quality_score: str = "contrast"
    """What `quality_quantile` is about: the contrast, or the name of one of `scores`."""
    quality_quantile: float = 0.0
    """Quantile of the bank's real images that an image must reach in it, in [0, 1]."""
    near_quantile: float = 0.95
    """Of the cosines of real images to their nearest real image, in [0, 1]: who is nearer than that
    to a known image is a near copy."""
    far_quantile: float = 0.01
    """Of the same cosines: who is farther than that from every real image is off their manifold."""
    max_cosine: float | None = None
    """Highest cosine to a known image, in [-1, 1], instead of the one of `near_quantile`."""
    min_cosine: float | None = None
    """Lowest cosine to the nearest real image, instead of the one of `far_quantile`."""
    copy_bits: int = 6
    """Fingerprints that differ in at most so many of 64 bits are of copies; -1 lets copies in."""
    neighbours: int = 10
    """k, the nearest real images that are asked for their label."""
    min_agreement: float = 0.6
    """Lowest share of them with the wanted label, in [0, 1]."""
    capacity_per_class: int = 1000
    """Most synthetic images of a class in the bank."""
    replacement: str = "reservoir"
    """Who leaves a full class, a name from `REPLACEMENTS`."""
    delay: int = 0
    """Training steps between the drawing of an image and its admission."""

    def __post_init__(self) -> None:
        for name in self.gates:
            GATES.look_up(name)
        if self.replacement not in REPLACEMENTS:
            raise unknown("replacement", self.replacement, REPLACEMENTS)
        share, cosine = "a share in [0, 1]", "a value in [-1, 1]"
        window = (self.min_cosine, self.max_cosine)
        checks = (
            ("top_quantile", 0 < self.top_quantile <= 1, "a share in (0, 1]"),
            ("max_affect_error", self.max_affect_error >= 0, "at least 0"),
            ("min_contrast", 0 <= self.min_contrast <= 0.5, "a value in [0, 0.5]"),
            ("quality_quantile", 0 <= self.quality_quantile <= 1, share),
            ("near_quantile", 0 <= self.near_quantile <= 1, share),
            ("far_quantile", 0 <= self.far_quantile <= self.near_quantile, "below near_quantile"),
            ("max_cosine", window[1] is None or -1 <= window[1] <= 1, cosine),
            ("min_cosine", window[0] is None or -1 <= window[0] <= 1, cosine),
            ("min_cosine", None in window or window[0] <= window[1], "below max_cosine"),
            ("copy_bits", -1 <= self.copy_bits <= 64, "a number of bits in [-1, 64]"),
            ("neighbours", self.neighbours >= 1, "at least 1"),
            ("min_agreement", 0 <= self.min_agreement <= 1, share),
            ("capacity_per_class", self.capacity_per_class >= 0, "at least 0"),
            ("delay", self.delay >= 0, "at least 0"),
        )
        for name, good, expected in checks:
            if not good:
                raise UserError(
                    f"admission policy: {name}", got=getattr(self, name), expected=expected
                )
