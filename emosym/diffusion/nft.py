"""DiffusionNFT: reinforcement on the forward process. Ref: arXiv 2509.16117.

Good images pull the denoiser towards themselves, bad ones push its mirror image towards them. It
needs no trajectory and no log-probability, so any sampler will do, and any process.
"""

from __future__ import annotations

from einops import reduce
from torch import Tensor

from emosym.diffusion.processes import Process

ADVANTAGE_CAP = 5.0
"""Largest |advantage|; it stands for an optimality of 0 or 1."""
LEAST_ERROR = 1e-5
"""Floor of the error that normalises the loss."""


def optimality(advantages: Tensor) -> Tensor:
    """Return r in [0, 1]: 1/2 for an average image."""
    cap = ADVANTAGE_CAP
    return advantages.clamp(-cap, cap) / (2 * cap) + 0.5


def nft_loss(
    process: Process,
    noised: Tensor,
    time: Tensor,
    clean: Tensor,
    output: Tensor,
    old: Tensor,
    r: Tensor,
    strength: float,
) -> Tensor:
    """Return the loss of each image, [B].

    L = cap / b (r |x̂⁺ - x|² / w⁺ + (1 - r) |x̂⁻ - x|² / w⁻), where x̂⁺ and x̂⁻ are the images of
    the outputs (1 - b) old + b output and (1 + b) old - b output, and w the mean |x̂ - x|, without
    gradient.

    Args:
        process: what outputs mean.
        noised: [B, C, H, W] at times [B].
        time: [B]
        clean: the sampled images' latents [B, C, H, W].
        output: of the policy, at `noised`.
        old: of the policy that sampled, without gradient.
        r: optimality [B].
        strength: b, how far the two implied policies are from the old one.
    """

    def error(implied: Tensor) -> Tensor:
        off = process.split(noised, implied, time).clean.float() - clean.float()
        size = reduce(off.detach().abs(), "b c h w -> b", "mean").clamp_min(LEAST_ERROR)
        return reduce(off.square(), "b c h w -> b", "mean") / size

    good = error((1 - strength) * old + strength * output)
    bad = error((1 + strength) * old - strength * output)
    return ADVANTAGE_CAP / strength * (r * good + (1 - r) * bad)
