"""Records that the folders exchange: samples, questions, predictions and requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emosym.affect.scales import PUBLIC, Affect, Scale
from emosym.affect.taxonomies import MIKELS8

if TYPE_CHECKING:
    from PIL import Image

Split = Literal["train", "val", "test"]

_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_THOUGHT = re.compile(r"<think>(.*?)(?:</think>|(?=<answer>)|\Z)", re.IGNORECASE | re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image of a dataset with its labels. None means unknown, never zero.

    Each rating stands alone, because some are known without the others: losses and questions use
    them one by one. `affect` is for code that needs valence and arousal together.
    """

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
    """Neutral prompt: the content of the image, without emotional words."""
    emotional_prompt: str | None = None
    """The same content, with the colours, light and textures that convey the emotion."""
    knowledge: str | None = None
    """Reasoning knowledge: why the image evokes its emotion. Ref: EmoSym, step 1."""
    attributes: Mapping[str, object] = field(default_factory=dict)
    """EmoSet's attributes by name (brightness, colorfulness, scene, object, ...)."""
    votes: Mapping[str, float] | None = None
    """Mikels label -> weight of the annotators who chose it, at least 0; need not sum to 1."""
    source: str = ""
    """Name of the dataset."""

    @property
    def affect(self) -> Affect | None:
        """Valence and arousal; None unless both are known. Raises `UserError` off the scale."""
        if self.valence is None or self.arousal is None:
            return None
        return Affect(self.valence, self.arousal)

    @property
    def images(self) -> tuple[Path, ...]:
        """The image as a tuple, as in `Question`."""
        return (self.image,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about an image, a pair of images or none, with its true answer if known."""

    id: str
    """Unique within its dataset."""
    task: str
    """A key of `emosym.tasks.registry.TASKS`."""
    images: tuple[Path | Image.Image, ...]
    """One image, a pair, or none: absolute paths, or images in memory."""
    split: Split
    text: str
    """Text of the user's turn, without the images."""
    truth: Mapping[str, str | float | tuple[str, ...]] = field(default_factory=dict)
    """Key of the task's answers -> true value. A well-formed answer has all of them."""
    answer: str = ""
    """Reference answer, the whole assistant turn; empty if unknown."""
    labels: tuple[str, ...] = MIKELS8
    """The emotion labels that an answer may choose from."""
    scale: Scale = PUBLIC
    """Scale of valence, arousal and dominance in `truth` and in answers."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Letter -> text of each option of a multiple choice."""
    aspect: str = ""
    """Subject of a multiple choice: emotion, valence, arousal or dominance."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Understanding:
    """The emotion that an image evokes, as predicted by a model."""

    emotion: str
    """The most probable Mikels label."""
    probabilities: Mapping[str, float]
    """Label -> probability; sums to 1."""
    affect: Affect
    """On `scales.PUBLIC`; `Affect.unchecked` from a model that may leave the scale."""
    unlike_training: bool | None = None
    """Whether the image looks unlike those that the model was trained on, so that the prediction is
    a guess; None where the model does not know."""
    text: str
    """Generated text, `<think>...</think><answer>...</answer>`; empty if none was generated."""

    @property
    def answer(self) -> str:
        """The answer in words, without the thought and without tags."""
        return split_answer(self.text)[1]

    @property
    def thought(self) -> str:
        """The reasoning before the answer; empty where there is none."""
        return split_answer(self.text)[0]

    def __repr__(self) -> str:
        valence, arousal = self.affect.coordinates
        return (
            f"Understanding({self.emotion} {self.probabilities.get(self.emotion, 0):.0%},"
            f" valence {valence:+.2f}, arousal {arousal:+.2f}, answer {self.answer!r}"
            + (", unlike the training images)" if self.unlike_training else ")")
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with valence and arousal side by side with the other values."""
        return {
            "emotion": self.emotion,
            "probabilities": dict(self.probabilities),
            "valence": self.affect.valence,
            "arousal": self.affect.arousal,
            "answer": self.answer,
            "thought": self.thought,
            "unlike_training": self.unlike_training,
        }


def split_answer(text: str) -> tuple[str, str]:
    """Return the thought and the answer of a generated text, without tags.

    The answer is in the last `<answer>` tag, or else what follows the thought.
    """
    thought, answers = _THOUGHT.search(text), _ANSWER.findall(text)
    answer = answers[-1] if answers else _THOUGHT.sub("", text)
    reasons = thought[1] if thought else ""
    return _TAG.sub("", reasons).strip(), _TAG.sub("", answer).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """What a generated image should show and evoke. At least one field is set."""

    prompt: str = ""
    """Neutral content; empty for an image of an emotion alone."""
    emotion: str | None = None
    """A Mikels label."""
    affect: Affect | None = None
    """On `scales.PUBLIC`."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with valence and arousal side by side with the other values."""
        valence, arousal = (None, None) if self.affect is None else self.affect.coordinates
        return {
            "prompt": self.prompt,
            "emotion": self.emotion,
            "valence": valence,
            "arousal": arousal,
        }
