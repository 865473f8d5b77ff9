"""Scores of generated images: what every judge must keep to, and the judges who read emotions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from emosym.affect.scales import PUBLIC
from emosym.errors import UserError, unknown
from emosym.records import ImageRequest, Understanding
from emosym.tasks.rewards import SHAPES

Understand = Callable[[Sequence[Image.Image]], Sequence[Understanding]]
"""Images -> what each evokes, in order."""


@dataclass(kw_only=True, slots=True)
class JudgeSpec:
    """Where a judge comes from; null is the judge's own default. A judge refuses what is not its.

    `model_zoo.judges.registry.judge` builds it.
    """

    path: str | None = None
    """Folder or hub id of its model, or the URL of one that is served; null for our own
    understanding branch, where the judge is one of it."""
    weights: str | None = None
    """File of the layer on top of CLIP."""
    model: str | None = None
    """Name of the model at a URL."""
    shape: str | None = None
    """What an error in valence and arousal is worth: a key of `rewards.SHAPES`."""
    cache: str | None = None
    """Folder that keeps the answers of a served model."""
    timeout: float | None = None
    """Longest wait for one answer of a served model, in seconds."""
    retries: int | None = None
    """How often a served model is asked again."""


class Recogniser(Protocol):
    """Our understanding branch: `EmoSymPipeline`, or the frozen reference of a run."""

    def recognise(self, images: Sequence[Image.Image]) -> tuple[list[Understanding], np.ndarray]:
        """Return one `Understanding` per image, in order, and the embeddings [N, D]."""


def reader(model: Recogniser) -> Understand:
    """Return how a model understands images, without their embeddings."""
    return lambda images: model.recognise(images)[0]


class AffectScorer:
    """How near the valence and arousal that an image evokes are to those asked for, in [0, 1].

    The mean over both of what the error is worth: with the shape `linear` that is
    1 - (|v̂ - v*| + |â - a*|) / 12; `threshold` counts hits, `gauss` sharpens them.

    Ref: EmoFeedback² (arXiv 2511.19982), whose own formula is not published.
    """

    def __init__(self, understand: Understand, shape: str = "linear") -> None:
        if shape not in SHAPES:
            raise unknown("shape of the affect score", shape, SHAPES)
        self.understand = understand
        self.worth = SHAPES[shape]

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Score images [N]; NaN where what was seen is not finite.

        Raises:
            UserError: a request asks for no valence and arousal.
        """
        for place, request in enumerate(requests):
            if request.valence is None or request.arousal is None:
                raise _unasked(place, request, "valence and arousal")
        seen = self.understand(images)
        pairs = zip(seen, requests, strict=True)
        return np.array([self._score(found, asked) for found, asked in pairs], np.float64)

    def _score(self, found: Understanding, asked: ImageRequest) -> float:
        errors = (found.valence - asked.valence, found.arousal - asked.arousal)
        if not all(map(math.isfinite, errors)):
            return math.nan  # which a threshold would take for a miss
        span = PUBLIC.high - PUBLIC.low
        return sum(self.worth(abs(error) / span) for error in errors) / len(errors)


class LabelScorer:
    """The probability of the emotion asked for, in [0, 1]."""

    def __init__(self, understand: Understand) -> None:
        self.understand = understand

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Score images [N].

        Raises:
            UserError: a request asks for no emotion, or for one that the judge does not know.
        """
        for place, request in enumerate(requests):
            if request.emotion is None:
                raise _unasked(place, request, "an emotion")
        scores = []
        for found, asked in zip(self.understand(images), requests, strict=True):
            if asked.emotion not in found.probabilities:
                raise unknown("emotion of a request", asked.emotion, found.probabilities)
            scores.append(found.probabilities[asked.emotion])
        return np.array(scores, np.float64)


def checked(
    name: str, scores: Sequence[float | None] | np.ndarray, requests: Sequence[ImageRequest]
) -> np.ndarray:
    """Return a judge's scores as float64 [N].

    Raises:
        UserError: not one number for each of N requests, or one that is missing or not finite
            (names judge and request).
    """
    fix = "no default stands in for it: mend the judge, or take it out of the configuration"
    try:
        found = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"judge {name!r} gives what is no number", got=error, fix=fix) from error
    if found.shape != (len(requests),):
        missing = len(found) if found.ndim == 1 else 0
        lost = f", none for {_named(missing, requests[missing])}" if missing < len(requests) else ""
        raise UserError(
            f"judge {name!r} does not give one score for each image{lost}",
            got=f"scores of shape {list(found.shape)}",
            expected=[len(requests)],
            fix=fix,
        )
    if not np.isfinite(found).all():
        place = int(np.isfinite(found).argmin())
        raise UserError(
            f"judge {name!r} gives no finite score for {_named(place, requests[place])}",
            got=scores[place],
            fix=fix,
        )
    return found


def _unasked(place: int, request: ImageRequest, what: str) -> UserError:
    return UserError(
        f"{_named(place, request)} does not ask for {what}, which its judge compares",
        fix="ask for it, or take the judge out of the configuration",
    )


def _named(place: int, request: ImageRequest) -> str:
    """Return which request it is, in few words."""
    parts = [repr(request.prompt[:60])] if request.prompt else []
    parts += [request.emotion] if request.emotion is not None else []
    if request.valence is not None and request.arousal is not None:
        parts.append(f"V {request.valence:g} A {request.arousal:g}")
    return f"request {place} ({', '.join(parts)})"
