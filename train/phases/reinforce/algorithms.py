"""The algorithms of reinforce: how scores of sampled images become a gradient of the denoiser.

There are three kinds: policy gradients through log-probabilities of sampling steps, DiffusionNFT's
loss on the forward process, and the gradient of the judge itself.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from emosym.diffusion.guidance import classifier_free_guidance
from emosym.diffusion.nft import ADVANTAGE_CAP, nft_loss, optimality
from emosym.diffusion.processes import Denoise, add_noise, sample, training_times
from emosym.diffusion.trajectories import (
    Trajectory,
    clipped_surrogate,
    divergences,
    log_ratios,
    sample_trajectory,
    transitions,
)
from emosym.diffusion.transitions import TRANSITIONS, GaussianStep, TransitionRule, noisy_steps
from emosym.errors import UserError
from emosym.inference.pipeline import to_image
from emosym.models.generator import Condition
from emosym.records import ImageRequest, Sample
from emosym.rl.advantages import joint_advantages
from emosym.tasks.affect import AFFECT_PROMPT
from train.distributed import ranks
from train.phases.base import MicroBatch, PhaseContext
from train.phases.reinforce.config import (
    AlgorithmOptions,
    DirectOptions,
    NftOptions,
    PolicyGradientOptions,
    ReinforceConfig,
)
from train.phases.reinforce.judging import Scorers, differentiable


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The requests of a micro-batch: G images of each prompt, side by side."""

    requests: list[ImageRequest]
    """[B·G]"""
    condition: Condition
    """[B·G, ...]"""
    noise: Tensor
    """Standard normal [B·G, C, H, W]."""
    batch: MicroBatch[Sample]
    """The micro-batch of prompts; a source of further draws."""
    size: int
    """G"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmOutput:
    """The loss of a micro-batch, its images and their rewards."""

    loss: Tensor
    images: list[Image.Image]
    """[B·G]"""
    rewards: Tensor
    """Weighted sum over the judges, [B, G]."""
    metrics: dict[str, Tensor]


Options = TypeVar("Options", bound=AlgorithmOptions)


class Algorithm(ABC, Generic[Options]):
    """What all algorithms share: the policy, the starting generator, the weights of the judges."""

    def __init__(self, context: PhaseContext, config: ReinforceConfig, options: Options) -> None:
        self.context = context
        self.config = config
        self.options = options
        self.process = context.model.generator.process
        self.names = [name for name, weight in self.config.reward_weights.items() if weight]
        self.weights = torch.tensor([self.config.reward_weights[name] for name in self.names])

    @abstractmethod
    def __call__(self, group: Group) -> AlgorithmOutput:
        """Sample the images of a group, judge them and return the loss."""

    def policy(self, condition: Condition) -> Denoise:
        """Return the denoiser with guidance, as it samples."""
        return self.context.model.generator.guided(condition, self.config.guidance_scale)

    def outputs(self, latents: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the policy's outputs with gradient; the unconditional branch has none."""
        guidance, engine = self.config.guidance_scale, self.context.parts["generator"]
        keep = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
        conditional = engine(latents, time, condition, keep)
        if guidance == 1:
            return conditional
        with torch.no_grad():
            unconditional = self.context.model.generator(latents, time, condition, ~keep)
        return classifier_free_guidance(conditional, unconditional, guidance)

    def start_outputs(self, latents: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the outputs of the starting generator, with guidance and without gradient.

        With adapters, the starting generator is the model without them.
        """
        start = self.context.starting_generator
        if start is None:
            raise RuntimeError("reinforce needs the starting generator")
        keep = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
        conditional = start(latents, time, condition, keep)
        if self.config.guidance_scale == 1:
            return conditional
        unconditional = start(latents, time, condition, ~keep)
        return classifier_free_guidance(conditional, unconditional, self.config.guidance_scale)

    def output_kl(
        self, latents: Tensor, time: Tensor, condition: Condition, outputs: Tensor
    ) -> Tensor:
        """Return the mean squared distance to the outputs of the starting generator."""
        reference = self.start_outputs(latents, time, condition)
        return (outputs - reference).float().square().mean()

    def add_kl(self, loss: Tensor, kl: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add β times the distance to the starting generator, and return it as a metric."""
        if not self.config.beta:
            return loss, {}
        distance = kl()
        return loss + self.config.beta * distance, {"kl": distance.detach()}

    @torch.no_grad()
    def images(self, latents: Tensor) -> list[Image.Image]:
        """Decode latents [B, C, H, W] to 8-bit images."""
        return self.to_images(self.context.model.autoencoder.decode(latents))

    def to_images(self, pixels: Tensor) -> list[Image.Image]:
        """Return pixels [B, 3, H, W] as 8-bit images; all ranks stop if some are not finite."""
        with self.context.save_on_failure():
            return [to_image(each) for each in pixels.detach().clamp(-1, 1)]

    def total(self, scores: dict[str, Tensor], size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return weighted scores [B, G], and each judge's mean where there are several."""
        stacked = torch.stack([scores[name] for name in self.names])
        total = torch.einsum("rn,r->n", stacked, self.weights.to(stacked))
        means = {f"reward_{name}": scores[name].mean() for name in self.names}
        return rearrange(total, "(b g) -> b g", g=size), means if len(means) > 1 else {}


Scored = TypeVar("Scored", bound=PolicyGradientOptions | NftOptions)


class ScoredAlgorithm(Algorithm[Scored]):
    """An algorithm that needs scores only, so any judge will do."""

    def __init__(self, context: PhaseContext, config: ReinforceConfig, options: Scored) -> None:
        super().__init__(context, config, options)
        self.scorers = Scorers(self.names, self.config.judges, context.reference)

    def judge(
        self, images: list[Image.Image], group: Group
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return rewards [B, G], advantages [B·G] over all ranks' images, and metrics."""
        with self.context.save_on_failure():
            scores = self.scorers(images, group.requests)
        rewards, means = self.total(scores, group.size)
        stacked = torch.stack([scores[name] for name in self.names]).to(self.context.device)
        grouped = rearrange(stacked, "r (b g) -> b r g", g=group.size)
        gathered = rearrange(ranks.gather(grouped), "b r g -> r b g")
        advantages = joint_advantages(
            gathered,
            self.weights.to(gathered),
            scale_rewards=self.options.scale_rewards,
            multi_objective_aggregation=self.options.multi_objective_aggregation,
        )
        first = ranks.rank() * len(grouped)
        own = rearrange(advantages[first : first + len(grouped)], "b g -> (b g)")
        return rewards, own.clamp(-ADVANTAGE_CAP, ADVANTAGE_CAP), means


class PolicyGradient(ScoredAlgorithm[PolicyGradientOptions]):
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

    def __call__(self, group: Group) -> AlgorithmOutput:
        """Sample, judge, and return the clipped surrogate."""
        process, count, window = self.process, len(group.requests), self.options.sde_window_size
        shared = group.noise[:: group.size].repeat_interleave(group.size, 0)
        draws = group.batch.normal(group.size, window, *shared.shape[1:])
        trajectory = sample_trajectory(
            self.policy(group.condition),
            process,
            shared,
            num_inference_steps=self.config.num_inference_steps,
            stochastic_steps=self._window(group.batch),
            step_noise=rearrange(draws, "b g s ... -> s (b g) ...").to(shared.device),
            rule=self.rule,
            eta=self.eta,
        )
        images = self.images(trajectory.final_latents)
        rewards, advantages, metrics = self.judge(images, group)
        latents = rearrange(trajectory.latents, "s b ... -> (s b) ...")
        times = torch.stack([interval.time for interval in trajectory.intervals])
        time = times.repeat_interleave(count)
        condition = group.condition.map(lambda each: torch.cat([each] * window))
        outputs = self.outputs(latents, time, condition)
        steps = self._steps(trajectory, outputs)
        log_ratio = log_ratios(trajectory, steps, self.rule)
        loss = clipped_surrogate(
            trajectory, log_ratio, advantages, self.options.epsilon, process, self.rule
        )

        def kl() -> Tensor:
            if self.options.kl_type == "output":
                return self.output_kl(latents, time, condition, outputs)
            start = self.start_outputs(latents, time, condition)
            return divergences(trajectory, steps, self._steps(trajectory, start), self.rule).mean()

        loss, distance = self.add_kl(loss, kl)
        deviation = (log_ratio.detach().exp() - 1).abs().max()
        return AlgorithmOutput(
            loss=loss,
            images=images,
            rewards=rewards,
            metrics={**metrics, **distance, "ratio_deviation": deviation},
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


class ForwardProcess(ScoredAlgorithm[NftOptions]):
    """Sampled images are noised again; the denoiser moves towards good ones, away from bad ones.

    One update a rollout, so the old policy equals the present one. Ref: DiffusionNFT
    (arXiv 2509.16117).
    """

    def __call__(self, group: Group) -> AlgorithmOutput:
        """Sample, judge, and return the loss on noised copies of each image."""
        config, process, copies = self.config, self.process, self.options.noised_copies
        with torch.no_grad():
            clean = sample(
                self.policy(group.condition), process, group.noise, config.num_inference_steps
            )
        images = self.images(clean)
        rewards, advantages, metrics = self.judge(images, group)
        normal, shape = group.batch.normal, clean.shape[1:]
        levels = rearrange(normal(group.size, copies), "b g s -> (s b g)")
        noise = rearrange(normal(group.size, copies, *shape), "b g s ... -> (s b g) ...")
        time = training_times(process, levels.to(clean.device), "uniform")
        target = torch.cat([clean] * copies)
        latents = add_noise(process, target, noise.to(clean.device), time)
        condition = group.condition.map(lambda each: torch.cat([each] * copies))
        outputs = self.outputs(latents, time, condition)
        loss = nft_loss(
            process,
            latents,
            time,
            target,
            outputs,
            outputs.detach(),
            optimality(torch.cat([advantages] * copies)),
            self.options.nft_beta,
        ).mean()
        loss, kl = self.add_kl(loss, lambda: self.output_kl(latents, time, condition, outputs))
        return AlgorithmOutput(loss=loss, images=images, rewards=rewards, metrics={**metrics, **kl})


class RewardGradient(Algorithm[DirectOptions]):
    """The gradient of the judge, through the image that one sampling step predicts.

    Only our own understanding branch is differentiable. Ref: ReFL (arXiv 2304.05977); AlignProp
    (arXiv 2310.03739); DRaFT (arXiv 2309.17400).
    """

    def __init__(
        self, context: PhaseContext, config: ReinforceConfig, options: DirectOptions
    ) -> None:
        super().__init__(context, config, options)
        self.judges = differentiable(self.names, config.judges)

    def __call__(self, group: Group) -> AlgorithmOutput:
        """Sample up to one step, predict the image there, and return minus its mean reward."""
        config, context, process = self.config, self.context, self.process
        # The step with gradient lies in the last part of the schedule; it is one for all ranks.
        late = max(1, round(config.num_inference_steps * self.options.gradient_range))
        place = config.num_inference_steps - late + int(group.batch.draws.uniform(1).item() * late)
        policy = self.policy(group.condition)
        with torch.no_grad():
            latents = sample(policy, process, group.noise, config.num_inference_steps, place)
        time = process.timesteps(config.num_inference_steps)[place].to(latents).expand(len(latents))
        outputs = self.outputs(latents, time, group.condition)
        predicted = process.predict(latents, outputs, time).clean
        with _frozen(context.model.autoencoder):
            pixels = context.model.autoencoder.decode(predicted).clamp(-1, 1)
        judged = context.reference.understand_pixels([AFFECT_PROMPT] * len(pixels), pixels)
        labels = context.model.config.emotions
        scores = {
            name: judge(judged, group.requests, labels) for name, judge in self.judges.items()
        }
        rewards, metrics = self.total(scores, group.size)
        loss, kl = self.add_kl(
            -rewards.mean(), lambda: self.output_kl(latents, time, group.condition, outputs)
        )
        return AlgorithmOutput(
            loss=loss,
            images=self.to_images(pixels),
            rewards=rewards.detach(),
            metrics={name: each.detach() for name, each in (metrics | kl).items()},
        )


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without reaching its weights."""
    training = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in training:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in training:
            parameter.requires_grad_(True)


ALGORITHMS: Mapping[str, Callable[[PhaseContext, ReinforceConfig, Any], Algorithm[Any]]] = {
    **{name: partial(PolicyGradient, rule) for name, rule in TRANSITIONS.items()},
    "nft": ForwardProcess,
    "direct": RewardGradient,
}
"""Name -> algorithm; its options are those of the same name in `config.OPTIONS`."""
