"""What the bank holds: candidates offered to it, entries it keeps, refusals it remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from emosym.affect.scales import PUBLIC
from emosym.affect.taxonomies import mikels
from emosym.errors import UserError, unknown
from memory_bank.store.images import GivenImage

Source = Literal["real", "synthetic"]
SOURCES: tuple[Source, ...] = ("real", "synthetic")
INTEGER_END = 2**63
"""SQLite's integers are signed and have 64 bits."""


def check_integer(name: str, value: int | None) -> None:
    """Raise `UserError` for an integer that the database cannot hold."""
    if value is not None and not -INTEGER_END <= value < INTEGER_END:
        raise UserError(f"{name} is out of range", got=value, expected="-2^63 <= value < 2^63")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Provenance:
    """Where an image comes from, what it should evoke and what a judge says. None means unknown."""

    source: Source
    """`real` (an annotated photograph) or `synthetic` (made by a model)."""
    emotion: str | None = None
    """The Mikels label it should evoke: asked of the generator, or annotated by people."""
    valence: float | None = None
    """The valence it should evoke, on `affect.PUBLIC`, [-3, 3]."""
    arousal: float | None = None
    """The arousal it should evoke, on `affect.PUBLIC`, [-3, 3]."""
    predicted: str | None = None
    """The judge's most probable Mikels label."""
    predicted_valence: float | None = None
    """The judge's valence in units of `affect.PUBLIC`."""
    predicted_arousal: float | None = None
    """The judge's arousal in units of `affect.PUBLIC`."""
    confidence: float | None = None
    """The judge's probability of `label`, in [0, 1]."""
    contrast: float | None = None
    """Standard deviation of the luma on [0, 1]; see `images.contrast`."""
    fingerprint: int | None = None
    """What near copies share, 64 bits signed; see `images.fingerprint`."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What more judges say, by their names."""
    prompt: str | None = None
    """Text it was generated from."""
    seed: int | None = None
    """Seed of the generator's noise, in [0, 2^63)."""
    model_hash: str | None = None
    """The model that generated it (the bank's own `model_hash` names its embedder)."""
    step: int | None = None
    """Training step at which it was offered."""

    @property
    def label(self) -> str | None:
        """The class that balance, quantiles and capacity count it in: wanted, else predicted."""
        return self.emotion if self.emotion is not None else self.predicted


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate(Provenance):
    """An image offered to the bank, with its embedding.

    What was asked for is checked here; what a judge said is left to the admission gates, so that a
    judge that answers NaN gets its candidates refused and recorded.

    Raises `UserError` for an unknown source or label, for half a (valence, arousal) pair, for a
    point outside `affect.PUBLIC`, for a seed outside [0, 2^63) and for a fingerprint or step of
    more than 64 bits.
    """

    image: GivenImage
    """A PNG or JPEG file, the bytes of one, a picture (stored as PNG), or what is read already."""
    embedding: np.ndarray
    """[D], any real dtype and length; kept as float32, compared by cosine."""

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)
        for name in ("emotion", "predicted"):
            label = getattr(self, name)
            if label is not None:
                object.__setattr__(self, name, mikels(label))
        if (self.valence is None) != (self.arousal is None):
            raise UserError(
                "valence and arousal belong together",
                got=f"valence={self.valence} arousal={self.arousal}",
                fix="give both or neither",
            )
        for name in ("valence", "arousal"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, PUBLIC.check(value, name))
        if self.seed is not None and not 0 <= self.seed < INTEGER_END:
            raise UserError("seed is out of range", got=self.seed, expected="0 <= seed < 2^63")
        check_integer("fingerprint", self.fingerprint)
        check_integer("step", self.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Provenance):
    """An image that the bank keeps; its file is `MemoryBank.image_path(entry)`."""

    id: int
    """The bank's own 64-bit id."""
    sha256: str
    """Of the image file; also its name."""
    suffix: Literal["png", "jpg"]
    reason: str
    """Why it was admitted."""
    added: int
    """Bank version that brought it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Provenance):
    """A candidate that was turned away; its image is not kept."""

    reason: str
    """Every gate that refused it, in words."""
    version: int
    """Bank version that recorded it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decision:
    """What happens to a candidate, and why."""

    candidate: Candidate
    admitted: bool
    reason: str
