"""Reading other libraries' weights strictly: every tensor is there, fits, and is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers.utils.logging
import transformers.utils.logging
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError

from emosym.errors import UserError

FIX = "copy or train the model again"
BROKEN = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TemplateError,
)
"""What the libraries raise about files and configurations that are not theirs."""


def pretrained(cls: type, source: str | Path, **options: Any) -> Any:
    """Return `cls.from_pretrained(source)`, which by itself fills gaps with random numbers.

    Raises:
        UserError: unreadable files; tensors that are missing, unused or of another shape.
    """
    with reading(source):
        # Sizes are "ignored" only to be told which differ; then it is an error like the others.
        model, found = cls.from_pretrained(
            source,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            **options,
        )
    wrong = [f"{key}: missing" for key in sorted(found["missing_keys"])]
    wrong += [f"{key}: not of this model" for key in sorted(found["unexpected_keys"])]
    wrong += [
        f"{key}: {tuple(saved)}, not {tuple(own)}"
        for key, saved, own in sorted(found["mismatched_keys"])
    ]
    if wrong:
        raise UserError(
            f"the weights in {source} do not fit their model in {len(wrong)} tensors",
            got=wrong[0],
            fix=FIX,
        )
    return model


@contextlib.contextmanager
def reading(source: str | Path) -> Iterator[None]:
    """Turn what the libraries raise about files into one line, and their own reports off."""
    with quiet():
        try:
            yield
        except BROKEN as error:
            raise UserError(
                f"the model in {source} cannot be loaded", got=_brief(error), fix=FIX
            ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' bars and reports out of the terminal."""
    logs = (transformers.utils.logging, diffusers.utils.logging)
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


def _brief(error: Exception) -> str:
    """Return the first sentence or so of an error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". If you want")[0].rstrip(".")[:300]
