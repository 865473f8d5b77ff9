"""Strict loading of other libraries' weights: every tensor is present, fits, and is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers.models.modeling_utils import ModelMixin
from transformers import AutoConfig

from emosym.errors import UserError
from model_zoo.received.limits import FIX, check_finite, check_parameters


def load_pretrained(cls: Any, source: Path, **options: Any) -> Any:
    """Return `cls.from_pretrained(source, **options)`; refuse what does not load completely.

    By itself `from_pretrained` fills missing tensors with random numbers.

    Args:
        cls: a model class of transformers or diffusers.
        source: folder, checked by `check_folder` before.
        options: further arguments of `from_pretrained`.

    Raises:
        UserError: files that cannot be read; a configuration of a much larger model; tensors that
            are missing, unused, of another shape, or not finite.
    """
    with user_errors(source):
        check_parameters(_described(cls, source), source)
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
    check_finite(model.state_dict(), source)
    return model


def _described(cls: Any, folder: Path) -> torch.nn.Module:
    """Return the model of a folder's configuration, without memory for its weights."""
    if _of_diffusers(cls):
        config, build = cls.load_config(folder), cls.from_config
    elif (config_class := getattr(cls, "config_class", None)) is not None:
        config, build = config_class.from_pretrained(folder), cls
    else:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        build = partial(cls.from_config, **_no_code(cls))
    with torch.device("meta"):
        return build(config)


def _of_diffusers(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, ModelMixin)


def _no_code(cls: Any) -> dict[str, Any]:
    """Return the argument with which transformers never runs a model's code, nor asks to."""
    return {} if _of_diffusers(cls) else {"trust_remote_code": False}  # diffusers' models run none


@contextlib.contextmanager
def user_errors(source: str | Path) -> Iterator[None]:
    """Raise a one-line `UserError` for what the libraries raise while they load from `source`.

    Their progress bars and reports are off.
    """
    with quiet_progress():
        try:
            yield
        except UserError:
            raise
        except BaseException as error:
            # Damaged files raise nearly everything, and a panic of tokenizers no Exception at all.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
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


def _first_sentence(error: BaseException) -> str:
    """Return the first line of an error, without the advice that transformers appends."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". If you want")[0].rstrip(".")[:300]
