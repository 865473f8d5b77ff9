"""EmoSym: one multimodal model that understands and generates emotion.

`from emosym import EmoSymPipeline` loads the model's code when it is asked for, not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emosym.affect.scales import Affect
    from emosym.errors import UserError
    from emosym.inference.pipeline import EmoSymPipeline
    from emosym.records import ImageRequest, Understanding

__all__ = ["Affect", "EmoSymPipeline", "ImageRequest", "Understanding", "UserError"]

_HOMES = {
    "Affect": "emosym.affect.scales",
    "EmoSymPipeline": "emosym.inference.pipeline",
    "ImageRequest": "emosym.records",
    "Understanding": "emosym.records",
    "UserError": "emosym.errors",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("emosym")
    if name not in _HOMES:
        raise AttributeError(f"module 'emosym' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
