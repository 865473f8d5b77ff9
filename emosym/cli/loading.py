"""The model of a command, on the device of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emosym.errors import UserError

if TYPE_CHECKING:
    from emosym.inference.pipeline import EmoSymPipeline


def load_pipeline(model: str, device: str | None) -> EmoSymPipeline:
    """Load a model by name or folder; raise UserError as `EmoSymPipeline.from_pretrained`."""
    from emosym.inference.pipeline import EmoSymPipeline

    return EmoSymPipeline.from_pretrained(model, device=_usable(device))


def identity(model: str) -> str:
    """Return the hash of a model's files: what memory banks know it by."""
    from model_zoo.quiet import quiet_libraries

    quiet_libraries()
    from model_zoo import zoo

    return zoo.fingerprint(zoo.folder_of(model))


def _usable(device: str | None) -> str:
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()  # the device "meta" makes tensors, but holds nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"cannot use the device {device!r}",
            got=str(error).partition("\n")[0],
            expected="cpu, cuda or cuda:NUMBER",
            fix="see `emosym doctor`",
        ) from error
    return device
