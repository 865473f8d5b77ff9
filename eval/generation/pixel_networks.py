"""What the small networks that read pictures share: their input, convolutions and weight files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from emosym.errors import UserError
from emosym.files import write_file
from emosym.inference.continuity import small_pixels

WIDTHS = (24, 48, 72, 96)
"""Channels of the four convolutions."""
BATCH = 256
"""Pictures that are read at a time."""


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Return images as float32 [N, 3, 64, 64] in [0, 1], larger ones averaged down."""
    return torch.from_numpy(small_pixels(images)).permute(0, 3, 1, 2).contiguous()


def standardised(pixels: Tensor) -> Tensor:
    """Return pictures [B, 3, H, W] without their light and contrast; colours keep their hue."""
    mean = pixels.mean((1, 2, 3), keepdim=True)
    spread = pixels.std((1, 2, 3), keepdim=True)
    return (pixels - mean) / (spread + 0.05)


def convolutions(channels: int) -> nn.Sequential:
    """Return four convolutions of stride 2: [B, channels, 64, 64] to [B, 96, 4, 4]."""
    layers: list[nn.Module] = []
    for before, after in zip((channels, *WIDTHS), WIDTHS, strict=False):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def load_weights(net: nn.Module, path: Path, *, owner: str, fix: str) -> None:
    """Load the weights of `owner`; raise UserError for a file that does not hold them."""
    try:
        net.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"cannot read {path}",
            got=str(error).partition("\n")[0],
            expected=f"weights of the {owner}",
            fix=fix,
        ) from error


def save_weights(net: nn.Module, path: Path) -> str:
    """Write the weights and return the SHA-256 of the file."""
    content = save(net.state_dict())
    write_file(path, content)
    return hashlib.sha256(content).hexdigest()
