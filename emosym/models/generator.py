"""The generation branch: conditioner and denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emosym.diffusion.processes import Denoise, sample
from emosym.interfaces import TextFeatures
from emosym.models.conditioner import Conditioner


@dataclass(frozen=True, slots=True)
class Condition:
    """Everything the denoiser is told about the image to draw."""

    text: TextFeatures
    """Of the prompts."""
    free: TextFeatures
    """Of the empty prompt, B times: what the unconditional branch is told, as the decoder learned
    it."""
    h_ctx: Tensor
    """[B, K, D]"""
    h_emo: Tensor
    """[B, D]"""
    affect: Tensor
    """[B, 2] on `affect.PUBLIC`; NaN rows mean "not asked for"."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """Return the condition with every tensor changed: repeated, say, or cut."""
        return Condition(
            text=TextFeatures(change(self.text.tokens), change(self.text.pooled)),
            free=TextFeatures(change(self.free.tokens), change(self.free.pooled)),
            h_ctx=change(self.h_ctx),
            h_emo=change(self.h_emo),
            affect=change(self.affect),
        )


class Generator(nn.Module):
    """Noise and a condition -> latents of an image that shows and evokes what was asked."""

    def __init__(self, denoiser: nn.Module, conditioner: Conditioner) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.process = denoiser.process
        self.conditioner = conditioner

    def forward(self, latents: Tensor, time: Tensor, condition: Condition, keep: Tensor) -> Tensor:
        """Return what the denoiser predicts, [B, C, H, W].

        Args:
            latents: noised latents [B, C, H, W].
            time: times of the process, [B].
            condition: what each image shows and evokes.
            keep: [B] of bool; False is the unconditional branch.
        """
        emotion, pooled = self.conditioner(condition.h_ctx, condition.h_emo, condition.affect, keep)
        text, free = condition.text, condition.free
        tokens = torch.where(keep[:, None, None], text.tokens, free.tokens)
        pooled = torch.where(keep[:, None], text.pooled, free.pooled) + pooled
        return self.denoiser.predict(latents, time, torch.cat([tokens, emotion], 1), pooled)

    @torch.no_grad()
    def sample(self, noise: Tensor, condition: Condition, *, steps: int, guidance: float) -> Tensor:
        """Return latents [B, C, H, W] after `steps` guided deterministic steps from `noise`."""
        return sample(self.guided(condition, guidance), self.process, noise, steps)

    def guided(self, condition: Condition, guidance: float) -> Denoise:
        """Return the denoiser under a condition; guidance 1 uses the condition as it is.

        Larger follows it harder, at twice the cost. Ref: arXiv 2207.12598.
        """
        if guidance == 1:
            return lambda latents, time: self(latents, time, condition, _all(latents, True))
        both = condition.map(lambda part: torch.cat([part, part]))

        def denoise(latents: Tensor, time: Tensor) -> Tensor:
            keep = torch.cat([_all(latents, True), _all(latents, False)])
            pair = self(torch.cat([latents] * 2), torch.cat([time] * 2), both, keep)
            wanted, free = pair.chunk(2)
            return free + guidance * (wanted - free)

        return denoise


def _all(latents: Tensor, value: bool) -> Tensor:
    return torch.full((len(latents),), value, device=latents.device)
