"""How judged images move the denoiser, by three kinds of gradient.

Of log-probabilities (policy gradient), on the forward process (NFT), or of the judge itself.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from emosym.diffusion.guidance import classifier_free_guidance
from emosym.diffusion.nft import ADVANTAGE_CAP, nft_loss, optimality
from emosym.diffusion.processes import Denoise, add_noise, sample, training_times
from emosym.diffusion.trajectories import log_ratios, sample_trajectory
from emosym.diffusion.transitions import TRANSITIONS, TransitionRule
from emosym.inference.pipeline import to_image
from emosym.models.generator import Condition
from emosym.records import ImageRequest
from emosym.rl.advantages import joint_advantages
from emosym.tasks.prompts import UNDERSTAND
from train.distributed import ranks
from train.phases.base import MicroBatch, PhaseContext
from train.phases.reinforce.judging import Scorers, differentiable


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What images are asked for: G of each prompt, side by side."""

    requests: list[ImageRequest]
    """[B·G]"""
    condition: Condition
    """[B·G, ...]"""
    noise: Tensor
    """Standard normal [B·G, C, H, W]."""
    part: MicroBatch
    """Where more draws come from."""
    size: int
    """G"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmOutput:
    """What the images of a micro-batch taught."""

    loss: Tensor
    images: list[Image.Image]
    """[B·G]"""
    rewards: Tensor
    """Weighted sum over the judges, [B, G]."""
    metrics: dict[str, Tensor]


class Algorithm(ABC):
    """What all learners share: the policy, its start, and the judges."""

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.config = context.config.reinforce
        self.process = context.model.generator.process
        self.names = [name for name, weight in self.config.rewards.items() if weight]
        self.weights = torch.tensor([self.config.rewards[name] for name in self.names])

    @abstractmethod
    def __call__(self, group: Group) -> AlgorithmOutput:
        """Draw the images of a group and return the loss that moves towards the better ones."""

    def policy(self, condition: Condition) -> Denoise:
        """Return the denoiser as it samples: guided."""
        return self.context.model.generator.guided(condition, self.config.guidance)

    def outputs(self, latents: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the policy's outputs with gradient; the unconditional branch has none."""
        guidance, engine = self.config.guidance, self.context.parts["generator"]
        yes = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
        wanted = engine(latents, time, condition, yes)
        if guidance == 1:
            return wanted
        with torch.no_grad():
            free = self.context.model.generator(latents, time, condition, ~yes)
        return classifier_free_guidance(wanted, free, guidance)

    def anchored(
        self,
        loss: Tensor,
        latents: Tensor,
        time: Tensor,
        condition: Condition,
        outputs: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add β times the squared distance to the outputs of the starting generator.

        Ref: Flow-GRPO's KL, of velocities; the adapter-off model is the start.
        """
        if not self.config.beta:
            return loss, {}
        start = self.context.start
        if start is None:
            raise RuntimeError("reinforce runs without the frozen start of the generator")
        yes = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
        before = start(latents, time, condition, yes)
        if self.config.guidance != 1:
            free = start(latents, time, condition, ~yes)
            before = classifier_free_guidance(before, free, self.config.guidance)
        kl = (outputs - before).float().square().mean()
        return loss + self.config.beta * kl, {"kl": kl.detach()}

    @torch.no_grad()
    def images(self, latents: Tensor) -> list[Image.Image]:
        """Return latents [B, C, H, W] as the pictures that a user would get."""
        return self.pictures(self.context.model.autoencoder.decode(latents))

    def pictures(self, pixels: Tensor) -> list[Image.Image]:
        """Return pixels [B, 3, H, W] as 8-bit images; all ranks leave where some are not finite."""
        with self.context.outside():
            return [to_image(each) for each in pixels.detach().clamp(-1, 1)]

    def total(self, scores: dict[str, Tensor], size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return weighted scores [B, G], and each judge's mean where there are several."""
        stacked = torch.stack([scores[name] for name in self.names])
        total = torch.einsum("rn,r->n", stacked, self.weights.to(stacked))
        means = {f"reward_{name}": scores[name].mean() for name in self.names}
        return rearrange(total, "(b g) -> b g", g=size), means if len(means) > 1 else {}


class ScoredAlgorithm(Algorithm):
    """A learner whose judges may be anything that gives a number."""

    def __init__(self, context: PhaseContext) -> None:
        super().__init__(context)
        self.scorers = Scorers(self.names, self.config.judges, context.reference)

    def judge(
        self, images: list[Image.Image], group: Group
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return rewards [B, G], advantages [B·G] over all ranks' images, and metrics."""
        with self.context.outside():
            scores = self.scorers(images, group.requests)
        rewards, means = self.total(scores, group.size)
        stacked = torch.stack([scores[name] for name in self.names]).to(self.context.device)
        grouped = rearrange(stacked, "r (b g) -> b r g", g=group.size)
        everyone = rearrange(ranks.gather(grouped), "b r g -> r b g")
        found = joint_advantages(
            everyone,
            self.weights.to(everyone),
            scale_rewards=self.config.spread,
            multi_objective_aggregation=(
                "normalize_then_sum" if self.config.rewards_apart else "sum_then_normalize"
            ),
        )
        first = ranks.rank() * len(grouped)
        own = rearrange(found[first : first + len(grouped)], "b g -> (b g)")
        return rewards, own.clamp(-ADVANTAGE_CAP, ADVANTAGE_CAP), means


class PolicyGradient(ScoredAlgorithm):
    """Some steps of the sampler are drawn; their log-ratios carry the advantages.

    A group starts from one noise, so that its images differ by what was drawn alone.
    Ref: Flow-GRPO (arXiv 2505.05470); the shared start: DanceGRPO (arXiv 2505.07818); windows:
    MixGRPO (arXiv 2507.21802).
    """

    def __init__(self, exploration: TransitionRule, context: PhaseContext) -> None:
        super().__init__(context)
        self.exploration = exploration
        self.eta = exploration.eta if self.config.noise is None else self.config.noise

    def __call__(self, group: Group) -> AlgorithmOutput:
        """Draw, judge, and return the clipped surrogate."""
        config, process, count = self.config, self.process, len(group.requests)
        shared = group.noise[:: group.size].repeat_interleave(group.size, 0)
        draws = group.part.normal(group.size, config.window, *shared.shape[1:])
        explored = sample_trajectory(
            self.policy(group.condition),
            process,
            shared,
            num_inference_steps=config.steps,
            stochastic_steps=self._window(group.part),
            step_noise=rearrange(draws, "b g s ... -> s (b g) ...").to(shared.device),
            rule=self.exploration,
            eta=self.eta,
        )
        images = self.images(explored.final_latents)
        rewards, advantages, metrics = self.judge(images, group)
        latents = rearrange(explored.latents, "s b ... -> (s b) ...")
        here = torch.stack([interval.time for interval in explored.intervals])
        time = here.repeat_interleave(count)
        condition = group.condition.map(lambda each: torch.cat([each] * config.window))
        outputs = self.outputs(latents, time, condition)
        by_step = rearrange(outputs, "(s b) ... -> s b ...", b=count)
        logs = log_ratios(explored, by_step, process, self.exploration, self.eta)
        loss = self._surrogate(logs.exp(), advantages)
        loss, drift = self.anchored(loss, latents, time, condition, outputs)
        deviation = (logs.detach().exp() - 1).abs().max()
        return AlgorithmOutput(
            loss=loss,
            images=images,
            rewards=rewards,
            metrics={**metrics, **drift, "ratio_deviation": deviation},
        )

    def _surrogate(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        """Return -mean min(ρ A, clip(ρ) A) of ratios [S, B·G]."""
        low, high = 1 - self.config.clip, 1 + self.config.clip
        return -torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages).mean()

    def _window(self, part: MicroBatch) -> range:
        """Return the drawn steps, where the step's draws put them: all ranks agree."""
        config = self.config
        places = round(config.steps * config.window_within) - config.window + 1
        first = int(part.draws.uniform(1).item() * places)
        return range(first, first + config.window)


class ForwardProcess(ScoredAlgorithm):
    """Final images are noised again: good ones attract, bad ones repel.

    One update a rollout, so the old policy is the present one. Ref: DiffusionNFT
    (arXiv 2509.16117).
    """

    def __call__(self, group: Group) -> AlgorithmOutput:
        """Draw, judge, and return the loss on `window` noised copies of each image."""
        config, process, copies = self.config, self.process, self.config.window
        with torch.no_grad():
            clean = sample(self.policy(group.condition), process, group.noise, config.steps)
        images = self.images(clean)
        rewards, advantages, metrics = self.judge(images, group)
        normal, shape = group.part.normal, clean.shape[1:]
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
            config.strength,
        ).mean()
        loss, drift = self.anchored(loss, latents, time, condition, outputs)
        return AlgorithmOutput(
            loss=loss, images=images, rewards=rewards, metrics={**metrics, **drift}
        )


class RewardGradient(Algorithm):
    """The judge's own gradient, through the image that one step of the sampler foresees.

    Only our own understanding branch gives one. Ref: ReFL (arXiv 2304.05977); AlignProp
    (arXiv 2310.03739); DRaFT (arXiv 2309.17400).
    """

    def __init__(self, context: PhaseContext) -> None:
        super().__init__(context)
        self.worth = differentiable(self.names, self.config.judges)

    def __call__(self, group: Group) -> AlgorithmOutput:
        """Sample up to one step, foresee the image, and return minus what it is worth."""
        config, context, process = self.config, self.context, self.process
        # Where it stops: in the last `window_within` of the schedule, one place for all ranks.
        late = max(1, round(config.steps * config.window_within))
        place = config.steps - late + int(group.part.draws.uniform(1).item() * late)
        policy = self.policy(group.condition)
        with torch.no_grad():
            latents = sample(policy, process, group.noise, config.steps, place)
        time = process.timesteps(config.steps)[place].to(latents).expand(len(latents))
        outputs = self.outputs(latents, time, group.condition)
        foreseen = process.predict(latents, outputs, time).clean
        with _still(context.model.autoencoder):
            pixels = context.model.autoencoder.decode(foreseen).clamp(-1, 1)
        reading = context.reference.see([UNDERSTAND] * len(pixels), pixels)
        labels = context.model.config.emotions
        scores = {
            name: worth(reading, group.requests, labels) for name, worth in self.worth.items()
        }
        rewards, metrics = self.total(scores, group.size)
        loss, drift = self.anchored(-rewards.mean(), latents, time, group.condition, outputs)
        return AlgorithmOutput(
            loss=loss,
            images=self.pictures(pixels),
            rewards=rewards.detach(),
            metrics={name: each.detach() for name, each in (metrics | drift).items()},
        )


@contextlib.contextmanager
def _still(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module and reach none of its weights."""
    training = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in training:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in training:
            parameter.requires_grad_(True)


ALGORITHMS: dict[str, Callable[[PhaseContext], Algorithm]] = {
    **{name: partial(PolicyGradient, found) for name, found in TRANSITIONS.items()},
    "nft": ForwardProcess,
    "direct": RewardGradient,
}
"""Algorithm -> how it learns."""
