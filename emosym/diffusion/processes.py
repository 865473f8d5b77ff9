"""Diffusion processes, x_t = a(t) x + b(t) ε for an image x and noise ε, and their sampler.

A process defines what its denoiser predicts, so that samplers, losses and reinforcement learning
are written once for flow matching and for noise prediction.
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
"""Distribution of training times."""
PredictionType = Literal["epsilon", "v_prediction"]
TimestepSpacing = Literal["leading", "trailing", "linspace"]
FlowSpacing = Literal["trailing", "linspace"]


Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents [B, C, H, W], times [B]) -> model output of the denoiser, [B, C, H, W]."""


class Prediction(NamedTuple):
    """Image and noise that a model output at noisy latents [B, C, H, W] implies."""

    clean: Tensor
    """The image x, same shape."""
    noise: Tensor
    """The noise ε, same shape."""


class Interval(NamedTuple):
    """One step of a sampler, from `time` to `next_time`. All are scalars."""

    time: Tensor
    next_time: Tensor
    second_time: Tensor
    """The sampler's second time: replaces the first where a formula diverges there."""


class Process(Protocol):
    """A diffusion process and the quantity that its denoiser predicts.

    Times are the denoiser's input; they fall from noise to image.
    """

    @property
    def duration(self) -> float:
        """Return the time from noise to image."""
        ...

    def coefficients(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b at times of any shape."""
        ...

    def times(self, fraction: Tensor) -> Tensor:
        """Return the times at fractions in (0, 1) of the way from image to noise."""
        ...

    def timesteps(self, num_inference_steps: int) -> Tensor:
        """Return the times of a sampler [steps + 1], from noise to image, both ends included."""
        ...

    def predict(self, latents: Tensor, output: Tensor, time: Tensor) -> Prediction:
        """Return image and noise from a model output at times [B]."""
        ...

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return the output of a perfect denoiser at times [B]."""
        ...

    def gain(self, time: Tensor) -> Tensor:
        """Return |∂x/∂output| [B]: the error of the image for a unit error of the output."""
        ...


@dataclass(frozen=True, slots=True)
class RectifiedFlow:
    """Rectified flow: x_σ = (1 - σ) x + σ ε, velocity v = ε - x, σ from 1 (noise) to 0 (image).

    Ref: Esser et al. 2024 (arXiv 2403.03206), section 5.3.2 (shift).
    """

    shift: float = 1.0
    """s of s σ / (1 + (s - 1) σ): larger images spend more steps at high noise."""
    timestep_spacing: FlowSpacing = "trailing"
    """Noise levels of a sampler before the shift. The last but one is 1 / steps with `trailing`, as
    in Flux's pipeline, and the least level of training with `linspace`, as in SD3's."""
    num_train_timesteps: int = 1000
    """Levels of training; only `linspace` uses it."""

    @property
    def duration(self) -> float:
        """Return 1."""
        return 1.0

    def coefficients(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 - σ and σ."""
        return 1 - time, time

    def times(self, fraction: Tensor) -> Tensor:
        """Return shifted noise levels; pure noise stays exactly 1.

        Where σ rounds to the float next to 1, √(σ / (1 - σ)) of an SDE is in the thousands.
        """
        shifted = self.shift * fraction / (1 + (self.shift - 1) * fraction)
        return torch.where(fraction == 1, fraction, shifted.clamp(max=1))

    def timesteps(self, num_inference_steps: int) -> Tensor:
        """Return σ from 1 to 0, evenly spaced before the shift.

        Ref: `linspace` as FlowMatchEulerDiscreteScheduler of diffusers, which shifts the least
        level once before it shifts all levels.
        """
        if self.timestep_spacing == "trailing":
            return self.times(torch.linspace(1, 0, num_inference_steps + 1))
        least = self.times(torch.tensor(1 / self.num_train_timesteps, dtype=torch.float64))
        spaced = torch.linspace(1, float(least), num_inference_steps, dtype=torch.float64)
        return self.times(torch.cat([spaced, torch.zeros(1)])).float()

    def predict(self, latents: Tensor, output: Tensor, time: Tensor) -> Prediction:
        """Return x = x_σ - σ v and ε = x_σ + (1 - σ) v."""
        sigma = _per_image(time)
        return Prediction(latents - sigma * output, latents + (1 - sigma) * output)

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return the velocity ε - x."""
        return noise - clean

    def gain(self, time: Tensor) -> Tensor:
        """Return σ."""
        return time


class VPDiffusion:
    """Variance-preserving diffusion in discrete steps: a² + b² = 1, a² = ᾱ_t.

    Times are 0 ... T - 1 as in diffusers; -1 is the image at the end of sampling. The arguments are
    those of diffusers' DDIM scheduler.
    Ref: Ho et al. 2020 (arXiv 2006.11239); Salimans & Ho 2022 (arXiv 2202.00512) for v.

    Args:
        alphas_cumprod: ᾱ_t [T], falling.
        prediction_type: what the denoiser predicts: ε, or v = a ε - b x.
        timestep_spacing: which of the T times a sampler takes. Ref: Lin et al. 2024 (arXiv
            2305.08891).
        steps_offset: added to the times of `leading`.
        set_alpha_to_one: whether sampling ends at ᾱ = 1; else at ᾱ_0, as in Stable Diffusion 1.5.

    Raises:
        UserError: ᾱ = 0 somewhere with `epsilon`: the image is undefined at pure noise.
    """

    def __init__(
        self,
        alphas_cumprod: Tensor,
        prediction_type: PredictionType = "epsilon",
        *,
        timestep_spacing: TimestepSpacing = "leading",
        steps_offset: int = 0,
        set_alpha_to_one: bool = False,
    ) -> None:
        if prediction_type == "epsilon" and not (alphas_cumprod > 0).all():
            raise UserError(
                "a noise schedule that ends in pure noise needs a v-prediction model",
                got="prediction_type epsilon",
                expected="v_prediction",
            )
        self.prediction_type = prediction_type
        self.timestep_spacing = timestep_spacing
        self.steps_offset = steps_offset
        last = torch.ones(1) if set_alpha_to_one else alphas_cumprod[:1].float()
        self._alphas = torch.cat([last, alphas_cumprod.float()])

    def __len__(self) -> int:
        return len(self._alphas) - 1

    @property
    def duration(self) -> float:
        """Return T."""
        return float(len(self))

    def coefficients(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return √ᾱ_t and √(1 - ᾱ_t)."""
        alpha = self._alphas.to(time.device)[time.long() + 1]
        return alpha.sqrt(), (1 - alpha).sqrt()

    def times(self, fraction: Tensor) -> Tensor:
        """Return ⌊fraction · T⌋."""
        return (fraction * len(self)).floor().clamp(max=len(self) - 1)

    def timesteps(self, num_inference_steps: int) -> Tensor:
        """Return times spaced as diffusers' DDIM scheduler does, then -1."""
        count, steps = len(self), num_inference_steps
        if steps > count:
            raise UserError(
                "more sampling steps than the noise schedule has", got=steps, expected=f"≤ {count}"
            )
        if self.timestep_spacing == "leading":
            chosen = torch.arange(steps).flip(0) * (count // steps) + self.steps_offset
        elif self.timestep_spacing == "linspace":
            chosen = torch.linspace(0, count - 1, steps, dtype=torch.float64).round().flip(0)
        else:
            chosen = (count - torch.arange(steps) * (count / steps)).round() - 1
        return torch.cat([chosen.float().clamp(max=count - 1), torch.tensor([-1.0])])

    def predict(self, latents: Tensor, output: Tensor, time: Tensor) -> Prediction:
        """Return x and ε of a predicted ε or v."""
        a, b = map(_per_image, self.coefficients(time))
        if self.prediction_type == "epsilon":
            return Prediction((latents - b * output) / a, output)
        return Prediction(a * latents - b * output, b * latents + a * output)

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return ε, or v = a ε - b x."""
        if self.prediction_type == "epsilon":
            return noise
        a, b = map(_per_image, self.coefficients(time))
        return a * noise - b * clean

    def gain(self, time: Tensor) -> Tensor:
        """Return b / a for ε, b for v."""
        a, b = self.coefficients(time)
        return b / a if self.prediction_type == "epsilon" else b


def add_noise(process: Process, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Return x_t for latents [B, C, H, W] at times [B]."""
    a, b = map(_per_image, process.coefficients(time))
    return a * clean + b * noise


def training_times(process: Process, normal: Tensor, density: Density) -> Tensor:
    """Return times [B] from standard normal draws [B].

    Ref: Esser et al. 2024, eq. 19 (logit-normal).
    """
    fraction = normal.sigmoid() if density == "logit_normal" else torch.special.ndtr(normal)
    return process.times(fraction)


def min_snr(process: Process, time: Tensor, gamma: float) -> Tensor:
    """Return loss weights [B] that weight the error of the image by min(SNR, γ).

    For ε this is min(SNR, γ) / SNR, for v min(SNR, γ) / (SNR + 1).
    Ref: Hang et al. 2023 (arXiv 2303.09556), eq. 7 and appendix.
    """
    a, b = process.coefficients(time)
    return (a / b).square().clamp(max=gamma) * process.gain(time).square()


SamplerStep = Callable[[int, Interval, Tensor, Prediction], Tensor]
"""(index of the step, interval, latents [B, C, H, W], prediction at them) -> next latents."""


def sample(
    denoise: Denoise,
    process: Process,
    noise: Tensor,
    num_inference_steps: int,
    stop: int | None = None,
    step: SamplerStep | None = None,
) -> Tensor:
    """Sample latents from noise [B, C, H, W].

    Args:
        denoise: model output of the process's denoiser.
        process: defines times and what model outputs mean.
        noise: standard normal.
        num_inference_steps: steps of the whole sampler.
        stop: how many of them are done; None does all.
        step: returns the next latents; None takes the deterministic step.
    """
    latents = noise
    timesteps = process.timesteps(num_inference_steps).to(noise.device)
    for index, (time, next_time) in enumerate(islice(pairwise(timesteps), stop)):
        interval = Interval(time, next_time, timesteps[1])
        times = time.expand(len(latents))
        prediction = process.predict(latents, denoise(latents, times), times)
        if step is None:
            latents = deterministic_step(process, interval, prediction)
        else:
            latents = step(index, interval, latents, prediction)
    return latents


def deterministic_step(process: Process, interval: Interval, prediction: Prediction) -> Tensor:
    """Return the next latents x' = a' x̂ + b' ε̂.

    This is Euler's method for a flow and DDIM for a diffusion. Ref: arXiv 2010.02502, eq. 12.
    """
    a, b = process.coefficients(interval.next_time)
    return a * prediction.clean + b * prediction.noise


def _per_image(value: Tensor) -> Tensor:
    """Return [B] as [B, 1, 1, 1]."""
    return value[:, None, None, None]
