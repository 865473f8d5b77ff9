"""Which options may change when a run is resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from emosym.errors import UserError
from emosym.models.model import EmoSym
from train.config import RunConfig
from train.phases.registry import PHASES

FIXED = (
    "model",
    "from_scratch",
    "seed",
    "data",
    "reasoning_tokens",
    "lora",
    "freeze",
    "engine.zero_stage",
    "engine.precision",
    *(f"engine.{part}.{key}" for part in EmoSym.PARTS for key in ("ema_decay", "ema_update_every")),
    "evaluate.before",
)
"""Options that define the run or took effect before the first step; `Phase.fixed` adds those of a
phase. All other options take effect from the resumed step on."""


def check_changes(old: RunConfig, new: RunConfig, *, measured: bool) -> None:
    """Refuse to resume a run with an option that cannot change.

    Args:
        old: the configuration that the run was started with.
        new: the configuration to resume with.
        measured: whether the starting model was evaluated; then `evaluate` is fixed too.

    Raises:
        UserError: naming the first key that cannot change.
    """
    keys = [*FIXED, *(f"{name}.{key}" for name, phase in PHASES.items() for key in phase.fixed)]
    fixed = tuple(f"{key}." for key in ([*keys, "evaluate"] if measured else keys))
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
    """Yield each value with its dotted key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
