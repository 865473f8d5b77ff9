"""The generation branch: conditioner and denoiser."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from emosym.diffusion.guidance import Scale, combine, guidance_of
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

CONDITION = {"text": "text", "affect": "affect", "h_ctx": "state", "h_emo": "state"}
"""Input of the generator that can be dropped, in the order of the columns of `keep` -> the source
of guidance that it belongs to."""

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

    def exchanged(self, inputs: Collection[str], order: Tensor) -> Condition:
        """Return the condition in which each image has some inputs of another image.

        Args:
            inputs: some of `CONDITION`.
            order: [B], the image whose inputs each one gets.
        """
        others = self.map(lambda tensor: tensor[order])
        return replace(self, **{name: getattr(others, name) for name in inputs})

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
            keep: [B, 4] of bool, for each of `CONDITION`; False drops that input. The
                unconditional branch has none.
        """
        emotion, pooled = self.conditioner(
            condition.h_ctx, condition.h_emo, condition.affect, keep[:, 1:]
        )
        text, empty, keep_text = condition.text, condition.unconditional_text, keep[:, :1]
        tokens = torch.where(keep_text[..., None], text.tokens, empty.tokens)
        pooled = torch.where(keep_text, text.pooled, empty.pooled) + pooled
        return self.denoiser.predict(latents, time, torch.cat([tokens, emotion], 1), pooled)

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        condition: Condition,
        *,
        num_inference_steps: int,
        guidance_scale: Scale,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return latents [B, C, H, W] after guided deterministic steps from `noise`.

        `guidance_scale` is one number, or one for each source (`diffusion.guidance.SOURCES`).
        `on_step` is called after each step.
        """
        denoise = self.guided(condition, guidance_scale)
        if on_step is None:
            return sample(denoise, self.process, noise, num_inference_steps)

        def step(index: int, interval: Interval, latents: Tensor, prediction: Prediction) -> Tensor:
            latents = deterministic_step(self.process, interval, prediction)
            return on_step(index, interval.time, latents)

        return sample(denoise, self.process, noise, num_inference_steps, step=step)

    def guided(self, condition: Condition, guidance_scale: Scale) -> Denoise:
        """Return the denoiser under a condition, with classifier-free guidance.

        Scale 1 is the conditional branch alone. Any other scale runs two branches as one batch, at
        twice the cost; scales of their own for text, affect and state run up to four.
        """
        guidance = guidance_of(guidance_scale)
        branches = len(guidance)
        every = condition.map(lambda tensor: torch.cat([tensor] * branches))

        def denoise(latents: Tensor, time: Tensor) -> Tensor:
            keep = torch.cat([keep_only(sources, latents) for sources, _ in reversed(guidance)])
            outputs = self(
                torch.cat([latents] * branches), torch.cat([time] * branches), every, keep
            )
            return combine(outputs.chunk(branches)[::-1], guidance)

        return denoise


def keep_only(sources: Collection[str], latents: Tensor) -> Tensor:
    """Return `keep` [B, 4] of latents [B, ...] that drops everything but some sources."""
    kept = [source in sources for source in CONDITION.values()]
    return torch.tensor(kept, device=latents.device).expand(len(latents), -1)
