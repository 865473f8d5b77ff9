"""The generation branch: conditioner and denoiser."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emosym.conditioner import Conditioner
from emosym.flow import euler, noised
from emosym.interfaces import TextFeatures


@dataclass(frozen=True, slots=True)
class Condition:
    """Everything the denoiser is told about the image to draw."""

    text: TextFeatures
    h_ctx: Tensor
    """[B, K, D]"""
    h_emo: Tensor
    """[B, D]"""
    affect: Tensor
    """[B, 2] on `affect.PUBLIC`; NaN rows mean "not asked for"."""


class Generator(nn.Module):
    """Noise and a condition -> latents of an image that shows and evokes what was asked."""

    def __init__(self, denoiser: nn.Module, *, width: int, hidden: int, shift: float) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.conditioner = Conditioner(width, hidden, denoiser.token_width, denoiser.pooled_width)
        self.shift = shift

    def forward(
        self, latents: Tensor, noise: Tensor, sigma: Tensor, condition: Condition, keep: Tensor
    ) -> Tensor:
        """Return the flow-matching loss of each image, [B].

        Args:
            latents: clean latents [B, C, H, W].
            noise: standard normal [B, C, H, W].
            sigma: noise levels [B] in (0, 1).
            condition: what each image shows and evokes.
            keep: [B] of bool; False trains the unconditional branch.
        """
        predicted = self._velocity(noised(latents, noise, sigma), sigma, condition, keep)
        return (predicted - (noise - latents)).float().pow(2).mean((1, 2, 3))

    @torch.no_grad()
    def sample(self, noise: Tensor, condition: Condition, *, steps: int, guidance: float) -> Tensor:
        """Return latents [B, C, H, W] after `steps` guided Euler steps from `noise`.

        `guidance` 1 uses the condition as it is; larger follows it harder, at twice the cost.
        """
        batch = noise.shape[0]
        yes = torch.ones(batch, dtype=torch.bool, device=noise.device)
        if guidance == 1:
            return euler(
                lambda x, s: self._velocity(x, s, condition, yes), noise, steps, self.shift
            )
        both = _twice(condition)
        keep = torch.cat([yes, ~yes])

        def guided(latents: Tensor, sigma: Tensor) -> Tensor:
            pair = self._velocity(torch.cat([latents] * 2), torch.cat([sigma] * 2), both, keep)
            wanted, free = pair.chunk(2)
            return free + guidance * (wanted - free)

        return euler(guided, noise, steps, self.shift)

    def _velocity(
        self, latents: Tensor, sigma: Tensor, condition: Condition, keep: Tensor
    ) -> Tensor:
        emotion, pooled = self.conditioner(condition.h_ctx, condition.h_emo, condition.affect, keep)
        shown = keep.to(condition.text.tokens.dtype)
        tokens = condition.text.tokens * shown[:, None, None]
        pooled = condition.text.pooled * shown[:, None] + pooled
        return self.denoiser.velocity(latents, sigma, torch.cat([tokens, emotion], 1), pooled)


def _twice(condition: Condition) -> Condition:
    return Condition(
        text=TextFeatures(
            torch.cat([condition.text.tokens] * 2), torch.cat([condition.text.pooled] * 2)
        ),
        h_ctx=torch.cat([condition.h_ctx] * 2),
        h_emo=torch.cat([condition.h_emo] * 2),
        affect=torch.cat([condition.affect] * 2),
    )
