"""Sampling images as a policy: some steps are stochastic, and they are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emosym.diffusion.processes import (
    Denoise,
    Interval,
    Prediction,
    Process,
    deterministic_step,
    sample,
)
from emosym.diffusion.transitions import GaussianStep, TransitionRule


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The stochastic steps of a batch of samples: the data of a policy gradient."""

    final_latents: Tensor
    """[B, C, H, W]"""
    latents: Tensor
    """Latents before each of S stochastic steps, [S, B, C, H, W]."""
    next_latents: Tensor
    """Latents after each, [S, B, C, H, W]."""
    means: Tensor
    """Means of the distributions of `next_latents`, [S, B, C, H, W]."""
    intervals: list[Interval]
    """The S steps."""


@torch.no_grad()
def sample_trajectory(
    denoise: Denoise,
    process: Process,
    noise: Tensor,
    *,
    num_inference_steps: int,
    stochastic_steps: Sequence[int],
    step_noise: Tensor,
    rule: TransitionRule,
    eta: float,
) -> Trajectory:
    """Sample latents from noise [B, C, H, W]; all but the stochastic steps are deterministic.

    Args:
        denoise: the policy.
        process: what its outputs mean.
        noise: standard normal [B, C, H, W].
        num_inference_steps: steps of the sampler.
        stochastic_steps: indices of the S stochastic steps, rising.
        step_noise: standard normal [S, B, C, H, W].
        rule: distribution of the stochastic steps.
        eta: its noise level.
    """
    before: list[Tensor] = []
    after: list[Tensor] = []
    means: list[Tensor] = []
    intervals: list[Interval] = []

    def step(index: int, interval: Interval, latents: Tensor, prediction: Prediction) -> Tensor:
        if index not in stochastic_steps:
            return deterministic_step(process, interval, prediction)
        distribution = rule.transition(process, interval, latents, prediction, eta)
        drawn = distribution.mean + distribution.std * step_noise[len(after)]
        before.append(latents)
        after.append(drawn)
        means.append(distribution.mean)
        intervals.append(interval)
        return drawn

    final_latents = sample(denoise, process, noise, num_inference_steps, step=step)
    return Trajectory(
        final_latents, torch.stack(before), torch.stack(after), torch.stack(means), intervals
    )


def transitions(
    trajectory: Trajectory, outputs: Tensor, process: Process, rule: TransitionRule, eta: float
) -> list[GaussianStep]:
    """Return the distributions that another policy gives the S steps of a trajectory.

    Args:
        trajectory: of the policy that sampled.
        outputs: model outputs of the other policy at `trajectory.latents`, [S, B, C, H, W].
        process: what outputs mean.
        rule: distribution of the stochastic steps, as in sampling.
        eta: its noise level, as in sampling.
    """
    steps = []
    for latents, output, interval in zip(
        trajectory.latents, outputs, trajectory.intervals, strict=True
    ):
        prediction = process.predict(latents, output, interval.time.expand(len(latents)))
        steps.append(rule.transition(process, interval, latents, prediction, eta))
    return steps


def log_ratios(
    trajectory: Trajectory, steps: Sequence[GaussianStep], rule: TransitionRule
) -> Tensor:
    """Return the log-ratios [S, B] of a policy to the one that sampled the trajectory.

    Args:
        trajectory: of the old policy.
        steps: distributions of the new policy, from `transitions`; they may carry gradients.
        rule: as in sampling.
    """
    rows = []
    for index, new in enumerate(steps):
        old = GaussianStep(trajectory.means[index], new.std)
        rows.append(rule.log_ratio(trajectory.next_latents[index], new, old))
    return torch.stack(rows)


def clipped_surrogate(
    trajectory: Trajectory,
    log_ratio: Tensor,
    advantages: Tensor,
    epsilon: float,
    process: Process,
    rule: TransitionRule,
) -> Tensor:
    """Return the loss -mean min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) over steps and samples.

    Args:
        trajectory: of the old policy.
        log_ratio: log ρ [S, B], from `log_ratios`.
        advantages: A [B].
        epsilon: ε.
        process: tells how long a step is.
        rule: as in sampling; one that `reweights` divides a step's loss by its length.
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    gain = torch.minimum(ratio * advantages, clipped * advantages)
    if rule.reweights:
        lengths = [interval.time - interval.next_time for interval in trajectory.intervals]
        gain = gain * process.duration / torch.stack(lengths)[:, None]
    return -gain.mean()


def divergences(
    trajectory: Trajectory,
    steps: Sequence[GaussianStep],
    reference: Sequence[GaussianStep],
    rule: TransitionRule,
) -> Tensor:
    """Return the divergences [S, B] of a policy's steps from those of a reference.

    Both are from `transitions`.
    """
    pairs = zip(steps, reference, trajectory.intervals, strict=True)
    return torch.stack([rule.kl(new, start, interval) for new, start, interval in pairs])
