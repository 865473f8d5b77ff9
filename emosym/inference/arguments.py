"""Keyword arguments that a method does not take: the error says what to use instead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from emosym.errors import UserError, unknown

COUNTERPARTS = {
    "device_map": "use device=",
    "generator": "use seed=, a number or one for each image",
    "height": "images have the size of the model's decoder",
    "latents": "use seed=, or `draw`, which takes the noise",
    "negative_prompt": "it is not supported: the guidance starts from an empty prompt",
    "output_type": "images are always PIL images",
    "prompt": "give it as the first argument",
    "return_dict": "images are returned themselves, one or a list",
    "trust_remote_code": "no code of a model is ever run",
    "variant": "use dtype=",
    "width": "images have the size of the model's decoder",
}
"""Argument of diffusers or transformers that has another name here, or none -> what to do."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def named_arguments(method: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a method: an unknown keyword argument is a `UserError` with a suggestion."""
    known = [name for name in inspect.signature(method).parameters if name not in ("self", "cls")]

    @functools.wraps(method)
    def checked(*args: Parameters.args, **options: Parameters.kwargs) -> Result:
        for name in options:
            if name in known:
                continue
            if name in COUNTERPARTS:
                raise UserError(
                    f"{method.__name__} has no argument {name!r}", fix=COUNTERPARTS[name]
                )
            raise unknown(f"argument of {method.__name__}:", name, known)
        return method(*args, **options)

    return checked
