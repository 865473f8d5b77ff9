"""What may change when a run goes on, and what it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from emosym.errors import UserError
from emosym.models.model import EmoSym
from train.config import TrainConfig

FIXED = (
    "model",
    "from_scratch",
    "seed",
    "data",
    "reasoning_tokens",
    "compress.knowledge_encoder",
    "lora",
    "freeze",
    "engine.zero_stage",
    "engine.precision",
    *(f"engine.{part}.{key}" for part in EmoSym.PARTS for key in ("ema", "ema_every")),
    "generate.train_text_encoder",
    "remember.real",
    "evaluate.before",
)
"""What a run is, and what has had its effect before the first step. All else counts from now on."""


def check_changes(old: TrainConfig, new: TrainConfig, *, measured: bool) -> None:
    """Refuse to go on with another run under the same name.

    Args:
        old: what the run was started with.
        new: what it shall go on with.
        measured: its starting model was measured, so the trained one is measured alike.

    Raises:
        UserError: naming the first key that cannot change.
    """
    fixed = tuple(f"{key}." for key in ((*FIXED, "evaluate") if measured else FIXED))
    before, after = (dict(_values(dataclasses.asdict(config))) for config in (old, new))
    for key in before | after:
        was, becomes = before.get(key), after.get(key)
        if was != becomes and f"{key}.".startswith(fixed):
            raise UserError(
                f"{key} cannot change in a run that has begun",
                got=repr(becomes),
                expected=repr(was),
                fix="leave it, or start a new run",
            )


def _values(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
