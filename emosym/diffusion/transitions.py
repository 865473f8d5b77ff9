"""Stochastic steps of a sampler, x' ~ N(mean, std²), with their log-probabilities.

What a policy gradient needs: a sampler whose every step is a distribution. All keep float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor

from emosym.diffusion.processes import Prediction, Process, RectifiedFlow
from emosym.errors import UserError


class Interval(NamedTuple):
    """One step of a schedule. All are scalars."""

    here: Tensor
    there: Tensor
    second: Tensor
    """The schedule's second time: it stands for the first where a formula is infinite there."""


class Step(NamedTuple):
    """The distribution of the next latents."""

    mean: Tensor
    """[B, C, H, W]"""
    std: Tensor
    """Scalar, or one for each row, [B, 1, 1, 1]."""


Transition = Callable[[Process, Interval, Tensor, Prediction, float], Step]
"""(process, interval, latents [B, C, H, W], what the denoiser says of them, η) -> next."""


def cps(process: Process, step: Interval, latents: Tensor, split: Prediction, eta: float) -> Step:
    """Coefficient-preserving sampling: S = b' sin(η π/2), the level of noise stays exactly b'.

    Ref: arXiv 2509.05952.
    """
    a, b = process.coefficients(step.there)
    std = b * math.sin(eta * math.pi / 2)
    return _preserving(a, b, std, split)


def ddim(process: Process, step: Interval, latents: Tensor, split: Prediction, eta: float) -> Step:
    """DDIM with noise: S² = η² b'² (1 - (a b' / a' b)²); η = 1 is the posterior of DDPM.

    Ref: arXiv 2010.02502, eq. 16; used by DDPO (arXiv 2305.13301).
    """
    a, b = process.coefficients(step.here)
    a_next, b_next = process.coefficients(step.there)
    std = eta * b_next * (1 - (a * b_next / (a_next * b)).square()).clamp(min=0).sqrt()
    return _preserving(a_next, b_next, std, split)


def flow_sde(
    process: Process, step: Interval, latents: Tensor, split: Prediction, eta: float
) -> Step:
    """The SDE of Flow-GRPO with s = η √(σ / (1 - σ)). Ref: arXiv 2505.05470, eq. 8-9."""
    sigma = torch.where(step.here == 1, step.second, step.here)
    return _sde(process, step, latents, split, eta * (step.here / (1 - sigma)).sqrt())


def dance_sde(
    process: Process, step: Interval, latents: Tensor, split: Prediction, eta: float
) -> Step:
    """The SDE of DanceGRPO with constant s = η. Ref: arXiv 2505.07818."""
    return _sde(process, step, latents, split, torch.as_tensor(eta))


def _preserving(a: Tensor, b: Tensor, std: Tensor, split: Prediction) -> Step:
    kept = (b.square() - std.square()).clamp(min=0).sqrt()
    return Step(a * split.clean + kept * split.noise, std)


def _sde(process: Process, step: Interval, latents: Tensor, split: Prediction, s: Tensor) -> Step:
    """mean = x + v dt + s² / (2 σ) ε̂ dt, std = s √-dt; ε̂ = x + (1 - σ) v, score = -ε̂ / σ."""
    if not isinstance(process, RectifiedFlow):
        raise UserError(
            "this sampler is for flow models",
            got=f"a decoder with {type(process).__name__.lower()}",
            fix="reinforce it with ddpo, cps or nft",
        )
    dt = step.there - step.here
    velocity = split.noise - split.clean
    drift = velocity + s.square() / (2 * step.here) * split.noise
    return Step(latents + drift * dt, s * (-dt).sqrt())


def log_prob(sample: Tensor, step: Step) -> Tensor:
    """Return the Gaussian log-density of samples [B, C, H, W], its mean over C, H, W: [B].

    The mean, not the sum: it keeps ratios near 1 for latents of any size. Ref: Flow-GRPO's code.
    """
    error = (sample - step.mean).square() / (2 * step.std.square())
    return _mean(-error - step.std.log() - 0.5 * math.log(2 * math.pi))


Ratio = Callable[[Tensor, Step, Step], Tensor]
"""(samples, new step, old step) -> log-ratio [B] of their probabilities."""


def gaussian_ratio(sample: Tensor, new: Step, old: Step) -> Tensor:
    """Return the difference of log-densities."""
    return log_prob(sample, new) - log_prob(sample, old)


def guarded_ratio(sample: Tensor, new: Step, old: Step) -> Tensor:
    """Return the normalised log-ratio, mean z · Δmean with z = (x' - mean_old) / S.

    It has mean 0 under the old policy at any noise. Ref: GRPO-Guard (arXiv 2510.22319), RatioNorm.
    """
    moved = _mean((new.mean - old.mean).square() / (2 * new.std))
    return _mean(new.std * (_error(sample, new) - _error(sample, old))) + moved


def plain_ratio(sample: Tensor, new: Step, old: Step) -> Tensor:
    """Return the difference of -(x' - mean)², constants dropped. Ref: CPS (arXiv 2509.05952)."""
    return _mean((sample - old.mean).square() - (sample - new.mean).square())


def _error(sample: Tensor, step: Step) -> Tensor:
    return -(sample - step.mean).square() / (2 * step.std.square())


def _mean(values: Tensor) -> Tensor:
    return reduce(values.float(), "b c h w -> b", "mean")


@dataclass(frozen=True, slots=True)
class TransitionRule:
    """How an algorithm explores while it samples, and how it compares policies."""

    transition: Transition
    eta: float
    """Noise, as published."""
    ratio: Ratio


TRANSITIONS = {
    "flow_grpo": TransitionRule(flow_sde, 0.7, gaussian_ratio),
    "dance_grpo": TransitionRule(dance_sde, 0.3, gaussian_ratio),
    "cps": TransitionRule(cps, 0.8, plain_ratio),
    "guard": TransitionRule(flow_sde, 0.7, guarded_ratio),
    "cps_guard": TransitionRule(cps, 0.8, guarded_ratio),
    "ddpo": TransitionRule(ddim, 1.0, gaussian_ratio),
}
"""Algorithm -> its exploration."""
