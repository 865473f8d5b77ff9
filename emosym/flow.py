"""Rectified flow: x_σ = (1 - σ) x + σ ε, velocity v = ε - x, σ from 1 (noise) to 0 (image).

Ref: Esser et al. 2024 (arXiv 2403.03206), eq. 13 (logit-normal σ) and §5.3.2 (shift).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


def noised(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return x_σ for latents [B, C, H, W] and sigma [B]."""
    level = sigma[:, None, None, None]
    return (1 - level) * clean + level * noise


def logit_normal(normal: Tensor, shift: float = 1.0) -> Tensor:
    """Return training noise levels in (0, 1) from standard normal draws [B]."""
    return shifted(normal.sigmoid(), shift)


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Return s σ / (1 + (s - 1) σ): more time at high noise for larger images."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def euler(
    velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int, shift: float = 1.0
) -> Tensor:
    """Integrate dx = v dσ from noise [B, C, H, W] at σ = 1 to σ = 0 in `steps` Euler steps."""
    sigmas = shifted(torch.linspace(1, 0, steps + 1, device=noise.device), shift)
    latents = noise
    for here, there in pairwise(sigmas):
        level = here.expand(latents.shape[0])
        latents = latents + (there - here) * velocity(latents, level)
    return latents
