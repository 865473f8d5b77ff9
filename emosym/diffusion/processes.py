"""Diffusion processes: how an image x turns to noise ε, x_t = a(t) x + b(t) ε, and back.

A process says what its denoiser predicts, so that samplers, losses and reinforcement are written
once for flow matching and for noise prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from emosym.errors import UserError

Density = Literal["logit_normal", "uniform"]
"""How training times are spread."""
PredictionType = Literal["epsilon", "v_prediction"]
Spacing = Literal["leading", "trailing"]


Denoise = Callable[[Tensor, Tensor], Tensor]
"""(latents [B, C, H, W], times [B]) -> what the process's denoiser predicts, [B, C, H, W]."""


class Prediction(NamedTuple):
    """What a denoiser's output says of noised latents [B, C, H, W]."""

    clean: Tensor
    """The image x, same shape."""
    noise: Tensor
    """The noise ε, same shape."""


class Process(Protocol):
    """A diffusion process and the quantity that its denoiser predicts.

    Times are those the denoiser is given; they fall from noise to image.
    """

    def coefficients(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b at times of any shape."""

    def times(self, share: Tensor) -> Tensor:
        """Return the times at shares in (0, 1) of the way from image to noise."""

    def schedule(self, steps: int) -> Tensor:
        """Return the times of a sampler [steps + 1], from noise to image."""

    def split(self, latents: Tensor, output: Tensor, time: Tensor) -> Prediction:
        """Return what an output at times [B] means."""

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return the output of a perfect denoiser at times [B]."""

    def gain(self, time: Tensor) -> Tensor:
        """Return |∂x/∂output| [B]: how an error of the output shows in the image."""


@dataclass(frozen=True, slots=True)
class RectifiedFlow:
    """Rectified flow: x_σ = (1 - σ) x + σ ε, velocity v = ε - x, σ from 1 (noise) to 0 (image).

    Ref: Esser et al. 2024 (arXiv 2403.03206), §5.3.2 (shift).
    """

    shift: float = 1.0
    """s of s σ / (1 + (s - 1) σ): more time at high noise for larger images."""

    def coefficients(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 - σ and σ."""
        return 1 - time, time

    def times(self, share: Tensor) -> Tensor:
        """Return shifted noise levels."""
        return self.shift * share / (1 + (self.shift - 1) * share)

    def schedule(self, steps: int) -> Tensor:
        """Return σ from 1 to 0, even before the shift."""
        return self.times(torch.linspace(1, 0, steps + 1))

    def split(self, latents: Tensor, output: Tensor, time: Tensor) -> Prediction:
        """Return x = x_σ - σ v and ε = x_σ + (1 - σ) v."""
        sigma = _wide(time)
        return Prediction(latents - sigma * output, latents + (1 - sigma) * output)

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return the velocity ε - x."""
        return noise - clean

    def gain(self, time: Tensor) -> Tensor:
        """Return σ."""
        return time


class VPDiffusion:
    """Variance-preserving diffusion in discrete steps: a² + b² = 1, a² = ᾱ_t.

    Times are 0 ... T - 1 as in diffusers; -1 is the image at the end of sampling.
    Ref: Ho et al. 2020 (arXiv 2006.11239); Salimans & Ho 2022 (arXiv 2202.00512) for v.

    Args:
        alphas: ᾱ_t [T], falling.
        prediction: what the denoiser predicts: ε, or v = a ε - b x.
        spacing: which of the T times a sampler takes. Ref: Lin et al. 2024 (arXiv 2305.08891).
        offset: added to the times of `leading`.
        ends_clean: whether sampling ends at ᾱ = 1; else at ᾱ_0, as Stable Diffusion 1.5 does.

    Raises:
        UserError: ᾱ = 0 somewhere with `epsilon`: pure noise says nothing of the image.
    """

    def __init__(
        self,
        alphas: Tensor,
        prediction: PredictionType = "epsilon",
        *,
        spacing: Spacing = "leading",
        offset: int = 0,
        ends_clean: bool = False,
    ) -> None:
        if prediction == "epsilon" and not (alphas > 0).all():
            raise UserError(
                "a noise schedule that ends in pure noise needs a v-prediction model",
                got="prediction_type epsilon",
                expected="v_prediction",
            )
        self.prediction = prediction
        self.spacing = spacing
        self.offset = offset
        last = torch.ones(1) if ends_clean else alphas[:1].float()
        self._alphas = torch.cat([last, alphas.float()])

    def __len__(self) -> int:
        return len(self._alphas) - 1

    def coefficients(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return √ᾱ_t and √(1 - ᾱ_t)."""
        alpha = self._alphas.to(time.device)[time.long() + 1]
        return alpha.sqrt(), (1 - alpha).sqrt()

    def times(self, share: Tensor) -> Tensor:
        """Return ⌊share · T⌋."""
        return (share * len(self)).floor().clamp(max=len(self) - 1)

    def schedule(self, steps: int) -> Tensor:
        """Return times spaced as diffusers' DDIM scheduler does, then -1."""
        count = len(self)
        if steps > count:
            raise UserError(
                "more sampling steps than the noise schedule has", got=steps, expected=f"≤ {count}"
            )
        if self.spacing == "leading":
            chosen = torch.arange(steps).flip(0) * (count // steps) + self.offset
        else:
            chosen = (count - torch.arange(steps) * (count / steps)).round() - 1
        return torch.cat([chosen.float().clamp(max=count - 1), torch.tensor([-1.0])])

    def split(self, latents: Tensor, output: Tensor, time: Tensor) -> Prediction:
        """Return x and ε of a predicted ε or v."""
        a, b = map(_wide, self.coefficients(time))
        if self.prediction == "epsilon":
            return Prediction((latents - b * output) / a, output)
        return Prediction(a * latents - b * output, b * latents + a * output)

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return ε, or v = a ε - b x."""
        if self.prediction == "epsilon":
            return noise
        a, b = map(_wide, self.coefficients(time))
        return a * noise - b * clean

    def gain(self, time: Tensor) -> Tensor:
        """Return b / a for ε, b for v."""
        a, b = self.coefficients(time)
        return b / a if self.prediction == "epsilon" else b


def add_noise(process: Process, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Return x_t for latents [B, C, H, W] at times [B]."""
    a, b = map(_wide, process.coefficients(time))
    return a * clean + b * noise


def training_times(process: Process, normal: Tensor, density: Density) -> Tensor:
    """Return times [B] from standard normal draws [B].

    Ref: Esser et al. 2024, eq. 19 (logit-normal).
    """
    share = normal.sigmoid() if density == "logit_normal" else torch.special.ndtr(normal)
    return process.times(share)


def min_snr(process: Process, time: Tensor, gamma: float) -> Tensor:
    """Return loss weights [B] that make the error of the image count min(SNR, γ).

    For ε this is min(SNR, γ) / SNR, for v min(SNR, γ) / (SNR + 1).
    Ref: Hang et al. 2023 (arXiv 2303.09556), eq. 7 and appendix.
    """
    a, b = process.coefficients(time)
    return (a / b).square().clamp(max=gamma) * process.gain(time).square()


def sample(
    denoise: Denoise, process: Process, noise: Tensor, steps: int, stop: int | None = None
) -> Tensor:
    """Go from noise [B, C, H, W] to latents in `steps` deterministic steps x' = a' x̂ + b' ε̂.

    This is Euler's method for a flow and DDIM for a diffusion. Ref: arXiv 2010.02502, eq. 12.

    Args:
        denoise: what the process's denoiser predicts.
        process: what that means.
        noise: standard normal.
        steps: of the whole schedule.
        stop: how many of them are done; None does all.
    """
    latents = noise
    schedule = process.schedule(steps).to(noise.device)
    for here, there in islice(pairwise(schedule), stop):
        time = here.expand(len(latents))
        a, b = process.coefficients(there)
        split = process.split(latents, denoise(latents, time), time)
        latents = a * split.clean + b * split.noise
    return latents


def _wide(value: Tensor) -> Tensor:
    return value[:, None, None, None]
