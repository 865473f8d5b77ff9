"""Loading the model of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emosym.inference.pipeline import EmoSymPipeline


def load_pipeline(model: str, device: str | None) -> EmoSymPipeline:
    """Load a model by name or folder; raises as `EmoSymPipeline.from_pretrained`."""
    from model_zoo import catalogue

    catalogue.folder_of(model)  # A wrong name is an error before imports that take seconds.

    from emosym.inference.pipeline import EmoSymPipeline

    return EmoSymPipeline.from_pretrained(model, device=device)


def model_hash(model: str) -> str:
    """Return the hash of a model's files, by which memory banks identify it."""
    from model_zoo import catalogue

    folder = catalogue.folder_of(model)

    from model_zoo.quiet import quiet_libraries

    quiet_libraries()
    from model_zoo import zoo

    return zoo.fingerprint(folder)
