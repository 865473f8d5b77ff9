"""Records that travel between folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from emosym.affect.scales import PUBLIC, Scale
from emosym.affect.taxonomies import MIKELS8

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
    votes: Mapping[str, float] | None = None
    """Mikels label -> weight of the people who felt it, at least 0; they need not sum to 1."""
    source: str = ""
    """Name of the dataset."""

    @property
    def images(self) -> tuple[Path, ...]:
        """The image, as a `Question` names its images."""
        return (self.image,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing asked, mostly about an image or a pair, with what is known of the answer."""

    id: str
    """Unique within its dataset."""
    task: str
    """A key of `prompts.TASKS`."""
    images: tuple[Path, ...]
    """Absolute paths: one image, a pair, or none."""
    split: Split
    text: str
    """The user's turn, beside the images."""
    truth: Mapping[str, str | float | tuple[str, ...]] = field(default_factory=dict)
    """Key of `answers.READERS` -> true value. An answer is well formed when it says all of them."""
    answer: str = ""
    """Reference answer, the assistant's whole turn; empty where none is known."""
    labels: tuple[str, ...] = MIKELS8
    """Emotions to choose from."""
    scale: Scale = PUBLIC
    """Of valence, arousal and dominance in `truth` and in answers."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Letter -> what it stands for, of a multiple choice."""
    aspect: str = ""
    """What a multiple choice is about (emotion, valence, arousal, dominance)."""


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
