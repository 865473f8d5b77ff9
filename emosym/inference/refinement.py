"""The record of a refinement: rounds, judged images, mixed states, and the critic's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Literal

from PIL import Image

from emosym.affect.scales import Affect
from emosym.records import ImageRequest

Stopped = Literal["near enough", "all rounds drawn"]
"""Why no further round follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One generated image and the judge's view of it."""

    seed: int
    affect: Affect
    """Judged; finite, but a judge may leave the scale."""
    error: float
    """`Affect.distance` to the request, in [0, 12]."""

    def to_dict(self) -> dict[str, object]:
        """Return plain data, with valence and arousal side by side with the other values."""
        valence, arousal = self.affect.coordinates
        return {"seed": self.seed, "valence": valence, "arousal": arousal, "error": self.error}


@dataclass(frozen=True, slots=True, kw_only=True)
class Critique:
    """The critic's answer about a round, given its best and its worst image."""

    words: str
    """The whole answer."""
    analysis: str
    """The reasoning in the answer; empty where it cannot be parsed."""
    suggestions: tuple[str, ...]
    """At most `criticise.MOST_SUGGESTIONS`; empty where none can be parsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateMix:
    """How a state was mixed from those of an earlier round's images and of emotions."""

    images: Mapping[int, float]
    """Seed of an image -> weight of its state; the sum is 1."""
    emotions: Mapping[str, float]
    """Mikels label -> weight of the mean of its emotion space; the sum is 0."""
    affect: Affect
    """Predicted of the mix; it may leave the scale."""

    def to_dict(self) -> dict[str, object]:
        """Return plain data, with seeds as text and valence and arousal side by side."""
        valence, arousal = self.affect.coordinates
        return {
            "images": {str(seed): weight for seed, weight in self.images.items()},
            "emotions": dict(self.emotions),
            "valence": valence,
            "arousal": arousal,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The images of one prompt and state, and how the next ones were found."""

    prompt: str
    state: StateMix | None = None
    """What the images were drawn from; None for the state that is read from the request."""
    drawings: tuple[Drawing, ...]
    best: int
    """Index of the least error in `drawings`; the first of equals."""
    worst: int
    """Index of the largest error; the last of equals."""
    critique: Critique | None = None
    """None for a round that was not criticised."""
    rewrite: str | None = None
    """The critic's whole answer to the request for a new prompt; None if there was no request."""
    kept: str | None = None
    """Why the next round uses an earlier prompt, or an earlier state where only the state changes;
    None if it uses a new one, or does not exist."""

    @property
    def mean_error(self) -> float:
        """The mean error of the images."""
        return fmean(drawing.error for drawing in self.drawings)

    @property
    def mean_affect(self) -> Affect:
        """The mean judged affect of the images."""
        return Affect.unchecked(
            fmean(drawing.affect.valence for drawing in self.drawings),
            fmean(drawing.affect.arousal for drawing in self.drawings),
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain data, `mean_error` included."""
        plain = asdict(replace(self, drawings=(), state=None))
        return plain | {
            "state": None if self.state is None else self.state.to_dict(),
            "drawings": tuple(drawing.to_dict() for drawing in self.drawings),
            "mean_error": self.mean_error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """The best image of all rounds, and the rounds."""

    request: ImageRequest
    """The completed request."""
    image: Image.Image
    rounds: tuple[Round, ...]
    stopped: Stopped

    @property
    def best(self) -> tuple[Round, Drawing]:
        """The image's round and drawing: the least error, the first of equals."""
        found = min(self.rounds, key=lambda one: one.drawings[one.best].error)
        return found, found.drawings[found.best]

    def to_dict(self) -> dict[str, object]:
        """Return everything except the image as plain data."""
        found, drawing = self.best
        best = {"round": self.rounds.index(found), "prompt": found.prompt, **drawing.to_dict()}
        return {
            "request": self.request.to_dict(),
            "best": best,
            "stopped": self.stopped,
            "rounds": [one.to_dict() for one in self.rounds],
        }


Show = Callable[[str, StateMix | None, Drawing, Image.Image], None]
"""Called with each judged image, and the prompt and state that it was generated from."""
