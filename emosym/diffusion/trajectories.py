"""Sampling images as a policy: some steps are drawn from a distribution and remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from emosym.diffusion.processes import Denoise, Process
from emosym.diffusion.transitions import Interval, Step, TransitionRule


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The steps of a batch of samples that were drawn: what a policy gradient looks at."""

    images: Tensor
    """Final latents [B, C, H, W]."""
    latents: Tensor
    """Where each of S drawn steps began, [S, B, C, H, W]."""
    samples: Tensor
    """Where it led, [S, B, C, H, W]."""
    means: Tensor
    """The means that it was drawn around, [S, B, C, H, W]."""
    intervals: list[Interval]
    """The S steps of the schedule."""


@torch.no_grad()
def sample_trajectory(
    denoise: Denoise,
    process: Process,
    noise: Tensor,
    *,
    steps: int,
    drawn: Sequence[int],
    draws: Tensor,
    exploration: TransitionRule,
    eta: float,
) -> Trajectory:
    """Go from noise [B, C, H, W] to latents; all steps but the drawn ones are deterministic.

    Args:
        denoise: the policy.
        process: what its outputs mean.
        noise: standard normal [B, C, H, W].
        steps: of the schedule.
        drawn: places in the schedule, rising, of the steps that are drawn.
        draws: standard normal [S, B, C, H, W], for the S drawn steps.
        exploration: their distribution.
        eta: its noise.
    """
    schedule = process.schedule(steps).to(noise.device)
    latents, kept, intervals = noise, [], []
    for place, (here, there) in enumerate(pairwise(schedule)):
        interval = Interval(here, there, schedule[1])
        time = here.expand(len(latents))
        split = process.split(latents, denoise(latents, time), time)
        if place in drawn:
            step = exploration.transition(process, interval, latents, split, eta)
            sample = step.mean + step.std * draws[len(kept)]
            kept.append((latents, sample, step.mean))
            intervals.append(interval)
            latents = sample
        else:
            a, b = process.coefficients(there)
            latents = a * split.clean + b * split.noise
    return Trajectory(latents, *(torch.stack(part) for part in zip(*kept, strict=True)), intervals)


def log_ratios(
    explored: Trajectory, outputs: Tensor, process: Process, exploration: TransitionRule, eta: float
) -> Tensor:
    """Return log-ratios [S, B] of a policy whose outputs at `explored.latents` are given.

    Gradients reach the outputs [S, B, C, H, W].
    """
    rows = []
    for place, interval in enumerate(explored.intervals):
        latents = explored.latents[place]
        split = process.split(latents, outputs[place], interval.here.expand(len(latents)))
        new = exploration.transition(process, interval, latents, split, eta)
        old = Step(explored.means[place], new.std)
        rows.append(exploration.ratio(explored.samples[place], new, old))
    return torch.stack(rows)
