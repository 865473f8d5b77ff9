"""Functions of the model zoo that a pipeline calls: `emosym` itself imports no model library."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

LOAD = "model_zoo.zoo:load"
"""Target of `from_pretrained`."""

SAVE = "model_zoo.zoo:save"
"""Target of `save_pretrained`."""

QUIET = "model_zoo.quiet:quiet_libraries"
"""Silences the import messages of the model libraries; called before the others."""


def imported(target: str) -> Callable[..., Any]:
    """Import the function `module:name` when it is needed."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)
