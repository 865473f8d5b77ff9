"""Policy gradients through the log-probabilities of sampling steps: Flow-GRPO and its relatives."""

from __future__ import annotations

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from emosym.diffusion.trajectories import (
    Trajectory,
    clipped_surrogate,
    divergences,
    log_ratios,
    sample_trajectory,
    transitions,
)
from emosym.diffusion.transitions import GaussianStep, TransitionRule, noisy_steps
from emosym.errors import UserError
from emosym.records import Sample
from train.micro_batches import MicroBatch
from train.phases.base import PhaseContext
from train.phases.reinforce.algorithm import AlgorithmOutput, Group, Rollout
from train.phases.reinforce.config import PolicyGradientOptions, ReinforceConfig
from train.phases.reinforce.scored import ScoredAlgorithm


class PolicyGradient(ScoredAlgorithm[PolicyGradientOptions, Trajectory]):
    """Policy gradient over the sampling steps of a window, in which the sampler adds noise.

    The images of a group start from the same noise, so that they differ by the drawn steps alone.
    Ref: Flow-GRPO (arXiv 2505.05470); the shared start: DanceGRPO (arXiv 2505.07818); windows:
    MixGRPO (arXiv 2507.21802).
    """

    def __init__(
        self,
        rule: TransitionRule,
        context: PhaseContext,
        config: ReinforceConfig,
        options: PolicyGradientOptions,
    ) -> None:
        super().__init__(context, config, options)
        self.rule = rule
        self.eta = rule.eta if options.noise_level is None else options.noise_level
        self.windows = self._windows()

    def draw(self, group: Group) -> tuple[Trajectory, list[Image.Image]]:
        """Sample with noise in the steps of one window."""
        window, shape = self.options.sde_window_size, self.context.model.autoencoder.latent_shape
        noise = group.normal(*shape)
        step_noise = rearrange(group.normal(window, *shape), "b s ... -> s b ...")
        trajectory = sample_trajectory(
            self.policy(group.condition),
            self.process,
            noise[:: group.size].repeat_interleave(group.size, 0),
            num_inference_steps=self.config.num_inference_steps,
            stochastic_steps=self._window(group.batch),
            step_noise=step_noise,
            rule=self.rule,
            eta=self.eta,
        )
        return trajectory, self.images(trajectory.final_latents)

    def loss(self, rollout: Rollout[Trajectory]) -> AlgorithmOutput:
        """Return the clipped surrogate of the drawn steps, and the distance to the start."""
        trajectory, group, advantages = rollout.drawn, rollout.group, rollout.advantages
        latents = rearrange(trajectory.latents, "s b ... -> (s b) ...")
        times = torch.stack([interval.time for interval in trajectory.intervals])
        time = times.repeat_interleave(len(group.requests))
        condition = group.condition.map(lambda each: torch.cat([each] * len(times)))
        outputs = self.outputs(latents, time, condition)
        steps = self._steps(trajectory, outputs)
        log_ratio = log_ratios(trajectory, steps, self.rule)
        epsilon = self.options.epsilon
        loss = clipped_surrogate(
            trajectory, log_ratio, advantages, epsilon, self.process, self.rule
        )

        def kl() -> Tensor:
            if self.options.kl_type == "output":
                return self.output_kl(latents, time, condition, outputs)
            start = self._steps(trajectory, self.start_outputs(latents, time, condition))
            return divergences(trajectory, steps, start, self.rule).mean()

        loss, distance = self.add_kl(loss, kl)
        moved = (log_ratio.detach().exp() - 1).abs()
        return AlgorithmOutput(
            loss=loss,
            metrics={**distance, "clip_ratio": (moved > epsilon).float().mean()},
            maxima={"ratio_deviation": moved.max()},
        )

    def _steps(self, trajectory: Trajectory, outputs: Tensor) -> list[GaussianStep]:
        by_step = rearrange(outputs, "(s b) ... -> s b ...", s=len(trajectory.intervals))
        return transitions(trajectory, by_step, self.process, self.rule, self.eta)

    def _windows(self) -> list[range]:
        """Return the windows that can be drawn: all of their steps add noise.

        Raises:
            UserError: there is none.
        """
        config, size = self.config, self.options.sde_window_size
        noisy = noisy_steps(self.process, config.num_inference_steps, self.rule, self.eta)
        places = round(config.num_inference_steps * self.options.sde_window_range) - size + 1
        found = [range(first, first + size) for first in range(places)]
        found = [window for window in found if set(window) <= set(noisy)]
        if not found:
            raise UserError(
                f"{config.algorithm} has no window of {size} steps that all add noise in the first"
                f" {self.options.sde_window_range:.0%} of the schedule",
                got=f"noise in {len(noisy)} of {config.num_inference_steps} steps",
                fix="lower algorithm_options.sde_window_size, or raise num_inference_steps",
            )
        return found

    def _window(self, batch: MicroBatch[Sample]) -> range:
        """Return the window of drawn steps, the same on all ranks."""
        return self.windows[int(batch.draws.uniform(1).item() * len(self.windows))]
