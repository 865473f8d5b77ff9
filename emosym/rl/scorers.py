"""Scorers of generated images by their emotion, and the check of all scorers' outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from emosym.affect.scales import PUBLIC, Affect
from emosym.errors import UserError, unknown
from emosym.interfaces import Recogniser, Scorer
from emosym.records import ImageRequest, Understanding
from emosym.tasks.assessment import SHAPES

UnderstandImages = Callable[[Sequence[Image.Image]], Sequence[Understanding | UserError]]
"""Images -> one `Understanding` for each, in order; an error for one that could not be judged."""
REASONS = 8
"""Maximum number of reasons that a judge keeps of one call."""


@dataclass(kw_only=True, slots=True)
class JudgeSpec:
    """Settings of a judge; null is the judge's own default. A judge refuses keys it does not have.

    `model_zoo.judges.registry.build_judge` builds the judge.
    """

    path: str | None = None
    """Folder or hub id of its model, or the URL of a served model; null is our own understanding
    branch, for the judges that use it."""
    weights: str | None = None
    """File of the layer on top of CLIP."""
    model: str | None = None
    """Name of the model at a URL."""
    shape: str | None = None
    """Reward as a function of the error in valence and arousal: a key of `assessment.SHAPES`."""
    cache: str | None = None
    """Folder for the answers of a served model."""
    max_tokens: int | None = None
    """Longest answer of a served model in tokens, with its reasoning."""
    max_completion_tokens: int | None = None
    """The same limit for servers that take it under this name; the judge finds out by itself."""
    temperature: float | None = None
    """Temperature of a served model's answers; 1 is the server's default and is not sent."""
    timeout: float | None = None
    """Longest wait for one answer of a served model, in seconds."""
    retries: int | None = None
    """How often a request to a served model is repeated."""


def image_understander(model: Recogniser) -> UnderstandImages:
    """Return the function by which a model understands images, without their embeddings."""
    return lambda images: model.recognise(images)[0]


class AffectScorer:
    """Closeness of the evoked valence and arousal to the requested ones, in [0, 1].

    It is the mean over both of the reward for the error: with the shape `linear` that is
    1 - (|v̂ - v*| + |â - a*|) / 12; `threshold` counts hits, `gauss` sharpens them.

    Ref: EmoFeedback², judge (docs/papers.md); its own formula is not published.
    """

    def __init__(self, understand: UnderstandImages, shape: str = "linear") -> None:
        if shape not in SHAPES:
            raise unknown("shape of the affect score", shape, SHAPES)
        self.understand = understand
        self.reward = SHAPES[shape]
        self.reasons: list[str] = []
        """Why images of the last call have no score: different reasons, at most `REASONS`."""

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Score images [N]; NaN where `understand` gives an error, which `reasons` then holds.

        Raises:
            UserError: a request without valence and arousal; a prediction that is not finite.
        """
        targets = [_target(place, request) for place, request in enumerate(requests)]
        found = self.understand(images)
        problems = [str(each) for each in found if isinstance(each, UserError)]
        self.reasons = list(dict.fromkeys(problems))[:REASONS]
        pairs = zip(found, targets, strict=True)
        return np.array([self._score(each, target) for each, target in pairs], np.float64)

    def _score(self, found: Understanding | UserError, target: Affect) -> float:
        if isinstance(found, UserError):
            return math.nan
        errors = found.affect.errors(target)
        if not all(map(math.isfinite, errors)):  # `threshold` would count it as a miss
            raise _not_finite("valence or arousal")
        span = PUBLIC.high - PUBLIC.low
        return sum(self.reward(error / span) for error in errors) / len(errors)


class LabelScorer:
    """The predicted probability of the requested emotion, in [0, 1]."""

    def __init__(self, understand: UnderstandImages) -> None:
        self.understand = understand

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Score images [N].

        Raises:
            UserError: a request without an emotion, or with one that the model does not know; an
                image that could not be judged.
        """
        emotions = []
        for place, request in enumerate(requests):
            if request.emotion is None:
                raise _incomplete(place, request, "emotion")
            emotions.append(request.emotion)
        scores = []
        for found, emotion in zip(self.understand(images), emotions, strict=True):
            if isinstance(found, UserError):
                raise found
            if emotion not in found.probabilities:
                raise unknown("emotion of a request", emotion, found.probabilities)
            if not math.isfinite(found.probabilities[emotion]):
                raise _not_finite("probability")
            scores.append(found.probabilities[emotion])
        return np.array(scores, np.float64)


class Judge:
    """A scorer by name, whose scores are checked at each call.

    Args:
        name: for error messages.
        scorer: what judges. Its attribute `reasons`, if it has one, says why images of the last
            call have no score.
    """

    def __init__(self, name: str, scorer: Scorer) -> None:
        self.name = name
        self.scorer = scorer

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Return the checked scores [N]; raises as `check_scores`."""
        return check_scores(self.name, self.scorer(images, requests), requests)

    @property
    def reasons(self) -> list[str]:
        """Why images of the last call have no score; at most `REASONS`."""
        return list(getattr(self.scorer, "reasons", ()))[:REASONS]


def check_scores(
    name: str, scores: Sequence[float | None] | np.ndarray, requests: Sequence[ImageRequest]
) -> np.ndarray:
    """Return a judge's scores as float64 [N]; NaN (or None) is an image without a score.

    Raises:
        UserError: not one number or None for each of N requests, or one that is infinite (the
            message names judge and request).
    """
    fix = "scores have no default: correct the judge, or remove it from the configuration"
    try:
        found = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"judge {name!r} gives scores that are not numbers", got=error, fix=fix
        ) from error
    if found.shape != (len(requests),):
        count = len(found) if found.ndim == 1 else 0
        missing = f", none for {_named(count, requests[count])}" if count < len(requests) else ""
        raise UserError(
            f"judge {name!r} does not give one score for each image{missing}",
            got=f"scores of shape {list(found.shape)}",
            expected=[len(requests)],
            fix=fix,
        )
    if np.isinf(found).any():
        place = int(np.isinf(found).argmax())
        raise UserError(
            f"judge {name!r} gives no finite score for {_named(place, requests[place])}",
            got=scores[place],
            fix=fix,
        )
    return found


def _target(place: int, request: ImageRequest) -> Affect:
    """Return the requested affect."""
    if request.affect is None:
        raise _incomplete(place, request, "valence and arousal")
    return request.affect


def _not_finite(what: str) -> UserError:
    return UserError(
        f"a judge's model predicts a {what} that is not finite",
        fix="its weights are damaged: copy or train the model again",
    )


def _incomplete(place: int, request: ImageRequest, what: str) -> UserError:
    return UserError(
        f"{_named(place, request)} has no {what}, which its judge needs",
        fix=f"give every request {what}, or remove the judge from the configuration",
    )


def _named(place: int, request: ImageRequest) -> str:
    """Return a short description of a request."""
    parts = [repr(request.prompt[:60])] if request.prompt else []
    parts += [request.emotion] if request.emotion is not None else []
    if request.affect is not None:
        parts.append(f"V {request.affect.valence:g} A {request.affect.arousal:g}")
    return f"request {place} ({', '.join(parts)})"
