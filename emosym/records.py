"""Records that travel between folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image with what is known about it. None means unknown, never zero."""

    id: str
    """Unique within its dataset."""
    image: Path
    """Absolute path of the image file."""
    split: Split
    emotion: str | None = None
    """A Mikels label."""
    valence: float | None = None
    """On `affect.PUBLIC`, [-3, 3]."""
    arousal: float | None = None
    """On `affect.PUBLIC`, [-3, 3]."""
    dominance: float | None = None
    """On `affect.PUBLIC`, [-3, 3]."""
    prompt: str | None = None
    """Neutral prompt: what is in the image, no affect word."""
    emotional_prompt: str | None = None
    """The same content with colour, light and texture that carry the emotion."""
    knowledge: str | None = None
    """Reasoning knowledge: why the image evokes what it evokes. Ref: EmoSym step 1."""
    attributes: Mapping[str, object] = field(default_factory=dict)
    """EmoSet's attributes by EmoSet's names (brightness, colorfulness, scene, object, ...)."""
    source: str = ""
    """Name of the dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Understanding:
    """What the model says an image evokes."""

    emotion: str
    """The most probable Mikels label."""
    probabilities: Mapping[str, float]
    """Label -> probability; sums to 1."""
    valence: float
    """On `affect.PUBLIC`, [-3, 3]."""
    arousal: float
    """On `affect.PUBLIC`, [-3, 3]."""
    answer: str
    """The language head's own words: `<think>...</think><answer>...</answer>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """What a generated image should show and evoke. At least one field is set."""

    prompt: str = ""
    """Neutral content; empty for an image from emotion alone."""
    emotion: str | None = None
    """A Mikels label."""
    valence: float | None = None
    """On `affect.PUBLIC`; given together with `arousal`."""
    arousal: float | None = None
    """On `affect.PUBLIC`."""
