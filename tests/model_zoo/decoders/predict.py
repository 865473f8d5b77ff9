"""One prediction of a tiny decoder in tests."""

from __future__ import annotations

import torch
from torch import Tensor

from model_zoo.decoders.denoisers import StableDiffusion

PROMPTS = ["a red house in the snow", "two dark cats"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def draw(denoiser: StableDiffusion) -> Tensor:
    """Return the output for `PROMPTS` at two noise levels."""
    text = denoiser.encode_text(PROMPTS)
    times = denoiser.process.times(torch.tensor([0.2, 0.9]))
    return denoiser.predict(normal(2, 4, 8, 8), times, text.tokens, text.pooled)
