"""EmoSym: one multimodal model that understands and generates emotion.

`from emosym import EmoSymPipeline` loads the model's code when it is asked for, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emosym.affect.scales import Affect
    from emosym.errors import UserError
    from emosym.inference.pipeline import EmoSymPipeline
    from emosym.records import ImageRequest, Understanding

__all__ = ["Affect", "EmoSymPipeline", "ImageRequest", "Understanding", "UserError"]


def __getattr__(name: str) -> Any:
    if name not in (*__all__, "__version__"):
        raise AttributeError(f"module 'emosym' has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        return version("emosym")
    from emosym.affect.scales import Affect
    from emosym.errors import UserError
    from emosym.inference.pipeline import EmoSymPipeline
    from emosym.records import ImageRequest, Understanding

    found = (Affect, EmoSymPipeline, ImageRequest, Understanding, UserError)
    return next(each for each in found if each.__name__ == name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
