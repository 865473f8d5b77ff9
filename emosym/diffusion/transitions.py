"""Stochastic steps of a sampler, x' ~ N(mean, std²), with their log-probabilities.

A policy gradient needs a sampler whose steps are distributions. All functions keep float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor

from emosym.diffusion.processes import Interval, Prediction, Process, RectifiedFlow
from emosym.errors import UserError


class GaussianStep(NamedTuple):
    """The distribution of the next latents."""

    mean: Tensor
    """[B, C, H, W]"""
    std: Tensor
    """Scalar, or one for each row, [B, 1, 1, 1]."""


Transition = Callable[[Process, Interval, Tensor, Prediction, float], GaussianStep]
"""(process, interval, latents [B, C, H, W], prediction at them, η) -> next latents."""


def cps(
    process: Process, interval: Interval, latents: Tensor, prediction: Prediction, eta: float
) -> GaussianStep:
    """Coefficient-preserving sampling: S = b' sin(η π/2), the noise level stays exactly b'.

    Ref: arXiv 2509.05952.
    """
    a, b = process.coefficients(interval.next_time)
    std = b * math.sin(eta * math.pi / 2)
    return _coefficient_preserving(a, b, std, prediction)


def ddim(
    process: Process, interval: Interval, latents: Tensor, prediction: Prediction, eta: float
) -> GaussianStep:
    """DDIM with noise: S² = η² b'² (1 - (a b' / a' b)²); η = 1 is the posterior of DDPM.

    Ref: arXiv 2010.02502, eq. 16; used by DDPO (arXiv 2305.13301).
    """
    a, b = process.coefficients(interval.time)
    a_next, b_next = process.coefficients(interval.next_time)
    std = eta * b_next * (1 - (a * b_next / (a_next * b)).square()).clamp(min=0).sqrt()
    return _coefficient_preserving(a_next, b_next, std, prediction)


def flow_sde(
    process: Process, interval: Interval, latents: Tensor, prediction: Prediction, eta: float
) -> GaussianStep:
    """The SDE of Flow-GRPO with s = η √(σ / (1 - σ)). Ref: arXiv 2505.05470, eq. 8-9."""
    sigma = torch.where(interval.time == 1, interval.second_time, interval.time)
    s = eta * (interval.time / (1 - sigma)).sqrt()
    return _sde(process, interval, latents, prediction, s)


def dance_sde(
    process: Process, interval: Interval, latents: Tensor, prediction: Prediction, eta: float
) -> GaussianStep:
    """The SDE of DanceGRPO with constant s = η. Ref: arXiv 2505.07818."""
    return _sde(process, interval, latents, prediction, torch.as_tensor(eta))


def _coefficient_preserving(
    a: Tensor, b: Tensor, std: Tensor, prediction: Prediction
) -> GaussianStep:
    remaining = (b.square() - std.square()).clamp(min=0).sqrt()
    return GaussianStep(a * prediction.clean + remaining * prediction.noise, std)


def _sde(
    process: Process, interval: Interval, latents: Tensor, prediction: Prediction, s: Tensor
) -> GaussianStep:
    """mean = x + v dt + s² / (2 σ) ε̂ dt, std = s √-dt; ε̂ = x + (1 - σ) v, score = -ε̂ / σ."""
    if not isinstance(process, RectifiedFlow):
        raise UserError(
            "this sampler is for flow models",
            got=f"a decoder with {type(process).__name__.lower()}",
            fix="reinforce it with ddpo, cps or nft",
        )
    dt = interval.next_time - interval.time
    velocity = prediction.noise - prediction.clean
    drift = velocity + s.square() / (2 * interval.time) * prediction.noise
    return GaussianStep(latents + drift * dt, s * (-dt).sqrt())


def log_prob(sample: Tensor, step: GaussianStep) -> Tensor:
    """Return the Gaussian log-density of samples [B, C, H, W], its mean over C, H, W: [B].

    The mean, not the sum, keeps ratios near 1 for latents of any size. Ref: Flow-GRPO, released
    code.
    """
    error = (sample - step.mean).square() / (2 * step.std.square())
    return _mean(-error - step.std.log() - 0.5 * math.log(2 * math.pi))


LogRatio = Callable[[Tensor, GaussianStep, GaussianStep], Tensor]
"""(samples, new step, old step) -> log-ratio [B] of their probabilities."""


def gaussian_ratio(sample: Tensor, new: GaussianStep, old: GaussianStep) -> Tensor:
    """Return the difference of log-densities."""
    return log_prob(sample, new) - log_prob(sample, old)


def guarded_ratio(sample: Tensor, new: GaussianStep, old: GaussianStep) -> Tensor:
    """Return the normalised log-ratio, mean z · Δmean with z = (x' - mean_old) / S.

    Its mean is 0 under the old policy at any noise level. Ref: GRPO-Guard (arXiv 2510.22319),
    ratio normalisation.
    """
    shift = _mean((new.mean - old.mean).square() / (2 * new.std))
    return _mean(new.std * (_log_density(sample, new) - _log_density(sample, old))) + shift


def plain_ratio(sample: Tensor, new: GaussianStep, old: GaussianStep) -> Tensor:
    """Return the difference of -(x' - mean)², without constants. Ref: CPS (arXiv 2509.05952)."""
    return _mean((sample - old.mean).square() - (sample - new.mean).square())


def _log_density(sample: Tensor, step: GaussianStep) -> Tensor:
    """Return the exponent of the density, per element."""
    return -(sample - step.mean).square() / (2 * step.std.square())


def _mean(values: Tensor) -> Tensor:
    return reduce(values.float(), "b c h w -> b", "mean")


KL = Callable[[GaussianStep, GaussianStep, Interval], Tensor]
"""(new step, reference step, interval) -> divergence [B] of the new step from the reference."""


def gaussian_kl(new: GaussianStep, reference: GaussianStep, interval: Interval) -> Tensor:
    """Return the KL divergence |Δmean|² / (2 S²), its mean over C, H, W.

    Ref: DPOK (arXiv 2305.16381); for CPS, Flow-GRPO's released code.
    """
    return _mean((new.mean - reference.mean).square() / (2 * new.std.square()))


def sde_kl(new: GaussianStep, reference: GaussianStep, interval: Interval) -> Tensor:
    """Return |Δmean|² / (2 s²), its mean over C, H, W, for an SDE with S = s √-dt.

    It is the KL divergence times -dt. Flow-GRPO's paper divides by S², its released code, for which
    β is published, by s². Ref: Flow-GRPO, scripts/train_sd3.py.
    """
    return gaussian_kl(new, reference, interval) * (interval.time - interval.next_time)


@dataclass(frozen=True, slots=True)
class TransitionRule:
    """How an algorithm samples stochastic steps, and how it compares policies."""

    transition: Transition
    eta: float
    """Noise level, as published."""
    log_ratio: LogRatio
    kl: KL
    reweights: bool = False
    """Whether the loss of a step is divided by -dt, its share of the time from noise to image: the
    mean moves in proportion to it, and so would the gradient. Ref: GRPO-Guard (arXiv 2510.22319),
    gradient reweighting; its release, scripts/train_sd3_GRPO_Guard.py."""


TRANSITIONS = {
    "flow_grpo": TransitionRule(flow_sde, 0.7, gaussian_ratio, sde_kl),
    "dance_grpo": TransitionRule(dance_sde, 0.3, gaussian_ratio, sde_kl),
    "cps": TransitionRule(cps, 0.8, plain_ratio, gaussian_kl),
    "guard": TransitionRule(flow_sde, 0.7, guarded_ratio, sde_kl, reweights=True),
    "cps_guard": TransitionRule(cps, 0.8, guarded_ratio, gaussian_kl, reweights=True),
    "ddpo": TransitionRule(ddim, 1.0, gaussian_ratio, gaussian_kl),
}
"""Algorithm -> its transition rule."""
LEAST_STD = 1e-4
"""Least standard deviation of a step with noise. Below it, float32 latents of unit size round the
noise itself by more than a thousandth; at 0 a step has no density."""


def noisy_steps(
    process: Process, num_inference_steps: int, rule: TransitionRule, eta: float
) -> list[int]:
    """Return the indices of a sampler's steps that add noise.

    A last step to the image adds none by CPS and DDIM, nor does DDIM between equal noise levels.
    """
    timesteps = process.timesteps(num_inference_steps)
    nothing = torch.zeros(1, 1, 1, 1)
    found = []
    for index, (time, next_time) in enumerate(pairwise(timesteps)):
        interval = Interval(time, next_time, timesteps[1])
        step = rule.transition(process, interval, nothing, Prediction(nothing, nothing), eta)
        if step.std >= LEAST_STD:
            found.append(index)
    return found
