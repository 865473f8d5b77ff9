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
from emosym.diffusion.guidance import SOURCES, Scale
from emosym.errors import UserError, unknown
from emosym.models.model import MAX_STEPS
from emosym.pictures.loading import ImageInput
from emosym.records import ImageRequest, Question

Images = ImageInput | Tensor | Sequence[ImageInput | Tensor]
"""One image or several, see `as_images`."""


def as_images(images: Any) -> tuple[list[ImageInput], bool]:
    """Return images as a list, and whether one image was given rather than several.

    One is a path (`str` or `Path`), the bytes of a file, a PIL image, or an array or tensor of
    2 or 3 dimensions (`ImageInput`); several are a list or another iterable of them, or an array or
    tensor of 4 dimensions, images first. Tensors are returned as arrays.

    Raises:
        UserError: something else.
    """
    file = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image))
    if file or (isinstance(images, (np.ndarray, Tensor)) and images.ndim < 4):
        return [_as_array(images)], True
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return [_as_array(image) for image in images], False
    raise UserError(
        "this is not an image",
        got=f"{type(images).__name__} {images!r:.60}",
        expected="a path, bytes, a PIL image, a NumPy array, a tensor, or a list of them",
    )


def _as_array(image: Any) -> Any:
    """Return a tensor as an array; everything else as it is."""
    if not isinstance(image, Tensor):
        return image
    image = image.detach().cpu()
    return (image.float() if image.is_floating_point() else image).numpy()


def as_requests(
    requests: Any, emotion: Any = None, valence: Any = None, arousal: Any = None
) -> tuple[list[ImageRequest], bool]:
    """Return completed requests as a list, and whether one was given rather than several.

    One is a prompt or an `ImageRequest`; several are a list or another iterable of them.

    Args:
        requests: what the images show.
        emotion: of every prompt, or a list with one for each prompt.
        valence: as `emotion`; with `arousal`.
        arousal: as `emotion`; with `valence`.

    Raises:
        UserError: something else; a list of another length than the prompts; as `complete`.
    """
    one = isinstance(requests, (str, ImageRequest))
    if not one and (isinstance(requests, Mapping) or not isinstance(requests, Iterable)):
        raise _no_request("this is not a request", requests)
    items = [requests] if one else list(requests)
    wanted = zip(
        _for_each("emotion", emotion, len(items)),
        _for_each("valence", valence, len(items)),
        _for_each("arousal", arousal, len(items)),
        strict=True,
    )
    completed = []
    for number, (item, evoked) in enumerate(zip(items, wanted, strict=True)):
        if not isinstance(item, (str, ImageRequest)):
            raise _no_request(f"item {number} is not a request", item)
        completed.append(complete(_with(item, *evoked)))
    return completed, one


def _for_each(name: str, value: Any, count: int) -> list[Any]:
    """Return the value of each of `count` prompts: one for all, or those of a list."""
    if not _several(value):
        return [value] * count
    values = list(value)
    if len(values) != count:
        raise UserError(
            f"a list for {name} has one item for each prompt",
            got=f"{len(values)} items for {count} prompt{'s' * (count != 1)}",
            fix=f"give {name} once for all prompts, or once for each",
        )
    return values


def _with(request: str | ImageRequest, emotion: Any, valence: Any, arousal: Any) -> ImageRequest:
    """Return the request of a prompt; an `ImageRequest` holds its own emotion and affect."""
    for name, value in {"valence": valence, "arousal": arousal}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise UserError(name, got=repr(value), expected="a number from -3 to 3")
    affect = Affect.optional(valence, arousal)
    if isinstance(request, str):
        return ImageRequest(prompt=request, emotion=emotion, affect=affect)
    given = {"emotion": emotion, "valence and arousal": affect}
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise UserError(
            f"{' and '.join(names)} beside an ImageRequest", fix="set them in the request"
        )
    return request


def _several(value: Any) -> bool:
    """Return whether a value is a list or the like; an array of no dimensions is one number."""
    listed = isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
    return listed and getattr(value, "ndim", 1) > 0


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
    several = _several(seed)
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


def check_sampling(num_inference_steps: int | None, guidance_scale: Scale | None) -> None:
    """Raise UserError for steps outside [1, `MAX_STEPS`], or a negative or infinite scale.

    A mapping has scales of some of `diffusion.guidance.SOURCES`.
    """
    if num_inference_steps is not None:
        check_count("the number of inference steps", num_inference_steps, MAX_STEPS)
    if guidance_scale is None:
        return
    named: Mapping[str, Any] = {"": guidance_scale}
    if isinstance(guidance_scale, Mapping):
        named = guidance_scale
        for source in named:
            if source not in SOURCES:
                raise unknown("source of the guidance scale:", str(source), SOURCES)
    for source, scale in named.items():
        number = isinstance(scale, Real) and not isinstance(scale, bool)
        if not (number and math.isfinite(scale) and scale >= 0):
            raise UserError(
                "the guidance scale" + (f" of {source}" if source else ""),
                got=repr(scale),
                expected="a finite number, 0 or more",
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
