"""Strict loading of other libraries' weights: every tensor is present, fits, and is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers.utils.logging
import transformers.utils.logging
from diffusers.models.modeling_utils import ModelMixin
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError

from emosym.errors import UserError

FIX = "copy or train the model again"
LOADING_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    RecursionError,
    MemoryError,
    SafetensorError,
    StrictDataclassError,
    TemplateError,
)
"""What the libraries raise for damaged files and invalid configurations."""


def load_pretrained(cls: Any, source: str | Path, **options: Any) -> Any:
    """Return `cls.from_pretrained(source, **options)`; refuse what does not load completely.

    By itself `from_pretrained` fills missing tensors with random numbers.

    Args:
        cls: a model class of transformers or diffusers.
        source: folder, or hub id.
        options: further arguments of `from_pretrained`.

    Raises:
        UserError: files that cannot be read; tensors that are missing, unused or of another shape.
    """
    with user_errors(source):
        # Mismatched sizes are "ignored" so that they are listed; below they are an error too.
        model, report = cls.from_pretrained(
            source,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            **_no_code(cls),
            **options,
        )
    wrong = [f"{key}: missing" for key in sorted(report["missing_keys"])]
    wrong += [f"{key}: not of this model" for key in sorted(report["unexpected_keys"])]
    wrong += [
        f"{key}: {tuple(saved)}, not {tuple(own)}"
        for key, saved, own in sorted(report["mismatched_keys"])
    ]
    if wrong:
        raise UserError(
            f"the weights in {source} do not fit their model in {len(wrong)} tensors",
            got=wrong[0],
            fix=FIX,
        )
    return model


def _no_code(cls: Any) -> dict[str, Any]:
    """Return the argument with which transformers never runs a model's code, nor asks to."""
    of_diffusers = isinstance(cls, type) and issubclass(cls, ModelMixin)  # its models run none
    return {} if of_diffusers else {"trust_remote_code": False}


@contextlib.contextmanager
def user_errors(source: str | Path) -> Iterator[None]:
    """Raise a one-line `UserError` for what the libraries raise while they load from `source`.

    Their progress bars and reports are off.
    """
    with quiet_progress():
        try:
            yield
        except LOADING_ERRORS as error:
            raise UserError(
                f"the model in {source} cannot be loaded", got=_first_sentence(error), fix=FIX
            ) from error


@contextlib.contextmanager
def quiet_progress() -> Iterator[None]:
    """Turn off progress bars and warnings of transformers and diffusers."""
    logs: tuple[Any, ...] = (transformers.utils.logging, diffusers.utils.logging)
    levels = [log.get_verbosity() for log in logs]
    bars = [log.is_progress_bar_enabled() for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, level, bar in zip(logs, levels, bars, strict=True):
            log.set_verbosity(level)
            if bar:
                log.enable_progress_bar()


def _first_sentence(error: Exception) -> str:
    """Return the first line of an error, without the advice that transformers appends."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". If you want")[0].rstrip(".")[:300]
