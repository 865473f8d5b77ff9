"""What callers give a pipeline, checked: images, requests, numbers of images and of steps."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from emosym.affect.scales import PUBLIC, Affect
from emosym.affect.taxonomies import NORMS, mikels
from emosym.errors import UserError
from emosym.models.model import MAX_STEPS
from emosym.pictures.loading import ImageInput
from emosym.records import ImageRequest, Question


def as_images(images: Any) -> tuple[list[ImageInput], bool]:
    """Return images as a list, and whether one image was given rather than several.

    One is a path (`str` or `Path`), the bytes of a file, a PIL image, or an array [H, W] or
    [H, W, C]; several are a list or another iterable of them, or an array [N, H, W, C].

    Raises:
        UserError: something else.
    """
    array = isinstance(images, np.ndarray)
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)) or (
        array and images.ndim < 4
    ):
        return [images], True
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return list(images), False
    raise UserError(
        "this is not an image",
        got=f"{type(images).__name__} {images!r:.60}",
        expected="a path, bytes, a PIL image, a NumPy array, or a list of them",
    )


def as_requests(
    requests: Any, emotion: Any = None, valence: Any = None, arousal: Any = None
) -> tuple[list[ImageRequest], bool]:
    """Return completed requests as a list, and whether one was given rather than several.

    One is a prompt or an `ImageRequest`; several are a list or another iterable of them.

    Args:
        requests: what the images show.
        emotion: of every prompt.
        valence: of every prompt, with `arousal`.
        arousal: of every prompt, with `valence`.

    Raises:
        UserError: something else; as `complete`.
    """
    one = isinstance(requests, (str, ImageRequest))
    if not one and (isinstance(requests, Mapping) or not isinstance(requests, Iterable)):
        raise _no_request("this is not a request", requests)
    for name, value in {"valence": valence, "arousal": arousal}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise UserError(name, got=repr(value), expected="a number from -3 to 3")
    affect = Affect.optional(valence, arousal)
    wanted = {
        name: value for name, value in {"emotion": emotion, "affect": affect}.items() if value
    }
    completed = []
    for number, request in enumerate([requests] if one else list(requests)):
        if isinstance(request, str):
            request = ImageRequest(prompt=request, **wanted)
        elif not isinstance(request, ImageRequest):
            raise _no_request(f"item {number} is not a request", request)
        elif wanted:
            raise UserError(
                f"{' and '.join(wanted)} beside an ImageRequest", fix="set them in the request"
            )
        completed.append(complete(request))
    return completed, one


def as_questions(questions: Any) -> tuple[list[Question], bool]:
    """Return questions as a list, and whether one was given; raise UserError for other things."""
    one = isinstance(questions, Question)
    items = [questions] if one else questions
    iterable = isinstance(items, Iterable) and not isinstance(items, (str, Mapping))
    items = list(items) if iterable else [items]
    for item in items:
        if not isinstance(item, Question):
            raise UserError(
                "this is not a question",
                got=f"{type(item).__name__} {item!r:.60}",
                expected="emosym.records.Question, or a list of them",
            )
    return items, one


def as_seeds(seed: Any, count: int) -> list[int]:
    """Return the seed of each of `count` images: seed + i, or the given ones.

    Raises:
        UserError: a negative seed, one that is no integer, another number of seeds than images.
    """
    several = isinstance(seed, Iterable) and not isinstance(seed, (str, Mapping))
    seeds = list(seed) if several else [seed]
    for one in seeds:
        if isinstance(one, bool) or not isinstance(one, Integral) or one < 0:
            raise UserError("seed", got=repr(one), expected="0 or more, an integer")
    if several and len(seeds) != count:
        raise UserError("each image needs a seed", got=f"{len(seeds)} for {count} images")
    return [int(one) for one in seeds] if several else [int(seed) + i for i in range(count)]


def _no_request(what: str, value: object) -> UserError:
    return UserError(
        what,
        got=f"{type(value).__name__} {value!r:.60}",
        expected="a prompt, an ImageRequest, or a list of them",
    )


def complete(request: ImageRequest) -> ImageRequest:
    """Check a request, and fill in the affect of its emotion's word if no affect is given.

    An affect on another scale is converted to `affect.PUBLIC`.

    Raises:
        UserError: an empty request, an unknown emotion, valence or arousal outside their scale.
    """
    for name, kind in {"prompt": str, "emotion": str | None, "affect": Affect | None}.items():
        value = getattr(request, name)
        if not isinstance(value, kind):
            words = "text" if name == "prompt" else name
            raise UserError(f"the {name} of a request", got=repr(value), expected=words)
    prompt = request.prompt.strip()
    if not prompt and request.emotion is None and request.affect is None:
        raise UserError("an empty request", expected="a prompt, an emotion, or valence and arousal")
    emotion = mikels(request.emotion) if request.emotion is not None else None
    affect = request.affect
    if affect is not None:
        affect.check()
    elif emotion is not None:
        affect = NORMS[emotion]
    if affect is not None and affect.scale != PUBLIC:
        affect = affect.to(PUBLIC)
    return ImageRequest(prompt=prompt, emotion=emotion, affect=affect)


def check_sampling(num_inference_steps: int | None, guidance_scale: float | None) -> None:
    """Raise UserError for steps outside [1, `MAX_STEPS`], or a negative or infinite scale."""
    if num_inference_steps is not None:
        check_count("the number of inference steps", num_inference_steps, MAX_STEPS)
    if guidance_scale is None:
        return
    number = isinstance(guidance_scale, Real) and not isinstance(guidance_scale, bool)
    if not (number and math.isfinite(guidance_scale) and guidance_scale >= 0):
        raise UserError(
            "the guidance scale", got=guidance_scale, expected="a finite number, 0 or more"
        )


def check_count(name: str, value: Any, most: int | None = None) -> None:
    """Raise UserError for a value that is not an integer of at least 1, and at most `most`."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not value >= 1 or (most is not None and value > most):
        expected = "1 or more" if most is None else f"1 to {most}"
        raise UserError(name, got=repr(value), expected=f"{expected}, an integer")


def wanted_affect(requests: Sequence[ImageRequest]) -> Tensor:
    """Return the requested valence and arousal, [B, 2] on `affect.PUBLIC`; NaN where not set."""
    rows = [(math.nan, math.nan) if r.affect is None else r.affect.coordinates for r in requests]
    return torch.tensor(rows)
