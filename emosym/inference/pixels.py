"""From the pixels of a model to images."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from emosym.errors import UserError


def to_image(pixels: Tensor) -> Image.Image:
    """Turn pixels [3, H, W] in [-1, 1] into an 8-bit image.

    Raises:
        UserError: a pixel is NaN or infinite.
    """
    if not pixels.isfinite().all():
        raise UserError(
            "the generated image has pixels that are not finite",
            fix="lower the guidance scale; if that does not help, the weights are damaged",
        )
    levels = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())
