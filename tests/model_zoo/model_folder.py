"""Reading and changing the files of a saved model in tests."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch

from model_zoo import catalogue

PARTS = ("backbone", "decoder/transformer", "decoder/text_encoder", "decoder/vae")


def weights(folder: Path, part: str) -> tuple[Path, dict[str, torch.Tensor]]:
    """Return the weights file of a part and its tensors."""
    path = next((folder / part).glob("*.safetensors"))
    return path, safetensors.torch.load_file(path)


def edit(folder: Path, **changes) -> None:
    """Change values under `model` in the folder's emosym.json."""
    about = json.loads((folder / catalogue.CONFIG).read_text())
    about["model"] |= changes
    (folder / catalogue.CONFIG).write_text(json.dumps(about))
