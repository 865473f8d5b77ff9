"""The generation branch: conditioner and denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emosym.diffusion.guidance import classifier_free_guidance
from emosym.diffusion.processes import (
    Denoise,
    Interval,
    Prediction,
    Process,
    deterministic_step,
    sample,
)
from emosym.interfaces import Denoiser, TextFeatures
from emosym.models.conditioner import Conditioner

OnStep = Callable[[int, Tensor, Tensor], Tensor]
"""(step, its time, the latents after it) -> the latents to continue with."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Inputs that describe the images to generate."""

    text: TextFeatures
    """Features of the prompts."""
    unconditional_text: TextFeatures
    """Features of the empty prompt, B times: input of the unconditional branch."""
    h_ctx: Tensor
    """[B, K, D]"""
    h_emo: Tensor
    """[B, D]"""
    affect: Tensor
    """[B, 2], wanted valence and arousal on `scales.PUBLIC`; a NaN row means none is wanted."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """Return the condition with `function` applied to every tensor."""
        return Condition(
            text=TextFeatures(function(self.text.tokens), function(self.text.pooled)),
            unconditional_text=TextFeatures(
                function(self.unconditional_text.tokens), function(self.unconditional_text.pooled)
            ),
            h_ctx=function(self.h_ctx),
            h_emo=function(self.h_emo),
            affect=function(self.affect),
        )


class Generator(nn.Module):
    """Noise and a condition -> latents of an image that shows the prompt and evokes the emotion."""

    def __init__(self, denoiser: Denoiser, conditioner: Conditioner) -> None:
        super().__init__()
        self.denoiser: Denoiser = denoiser
        self.process: Process = denoiser.process
        self.conditioner = conditioner

    def forward(self, latents: Tensor, time: Tensor, condition: Condition, keep: Tensor) -> Tensor:
        """Return the model output of the denoiser, [B, C, H, W].

        Args:
            latents: noisy latents [B, C, H, W].
            time: times of the process, [B].
            condition: of each image.
            keep: [B] of bool; False drops the condition: the unconditional branch.
        """
        emotion, pooled = self.conditioner(condition.h_ctx, condition.h_emo, condition.affect, keep)
        text, empty = condition.text, condition.unconditional_text
        tokens = torch.where(keep[:, None, None], text.tokens, empty.tokens)
        pooled = torch.where(keep[:, None], text.pooled, empty.pooled) + pooled
        return self.denoiser.predict(latents, time, torch.cat([tokens, emotion], 1), pooled)

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        condition: Condition,
        *,
        num_inference_steps: int,
        guidance_scale: float,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return latents [B, C, H, W] after guided deterministic steps from `noise`.

        `on_step` is called after each step.
        """
        denoise = self.guided(condition, guidance_scale)
        if on_step is None:
            return sample(denoise, self.process, noise, num_inference_steps)

        def step(index: int, interval: Interval, latents: Tensor, prediction: Prediction) -> Tensor:
            latents = deterministic_step(self.process, interval, prediction)
            return on_step(index, interval.time, latents)

        return sample(denoise, self.process, noise, num_inference_steps, step=step)

    def guided(self, condition: Condition, guidance_scale: float) -> Denoise:
        """Return the denoiser under a condition, with classifier-free guidance.

        Scale 1 is the conditional branch alone. Any other scale runs both branches as one batch, at
        twice the cost.
        """
        if guidance_scale == 1:
            return lambda latents, time: self(latents, time, condition, _filled(latents, True))
        both = condition.map(lambda tensor: torch.cat([tensor, tensor]))

        def denoise(latents: Tensor, time: Tensor) -> Tensor:
            keep = torch.cat([_filled(latents, True), _filled(latents, False)])
            outputs = self(torch.cat([latents] * 2), torch.cat([time] * 2), both, keep)
            conditional, unconditional = outputs.chunk(2)
            return classifier_free_guidance(conditional, unconditional, guidance_scale)

        return denoise


def _filled(latents: Tensor, value: bool) -> Tensor:
    """Return [B] of bool."""
    return torch.full((len(latents),), value, device=latents.device)
