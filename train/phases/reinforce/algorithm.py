"""What the algorithms of reinforce share: the images of a step, the policy and its start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from emosym.diffusion.guidance import combine, guidance_of
from emosym.diffusion.processes import Denoise
from emosym.inference.pixels import to_image
from emosym.models.generator import Condition, keep_only
from emosym.records import ImageRequest, Sample
from train.micro_batches import MicroBatch
from train.phases.base import PhaseContext
from train.phases.reinforce.config import AlgorithmOptions, ReinforceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The requests of a micro-batch: G images of each prompt, side by side."""

    requests: list[ImageRequest]
    """[B·G]"""
    prompts: Condition
    """Of each prompt, [B, ...]."""
    batch: MicroBatch[Sample]
    """The micro-batch of prompts; a source of random draws."""
    size: int
    """G"""

    @property
    def condition(self) -> Condition:
        """Return the condition of each image, [B·G, ...]."""
        return self.prompts.map(lambda each: each.repeat_interleave(self.size, 0))

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers for each image, [B·G, *shape], on the model's device."""
        drawn = rearrange(self.batch.normal(self.size, *shape), "b g ... -> (b g) ...")
        return drawn.to(self.prompts.affect.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Images and their scores."""

    images: list[Image.Image]
    """[B·G]"""
    scores: dict[str, Tensor]
    """Judge -> scores [B·G], of the judges that give the reward; NaN without a score."""
    rewards: Tensor
    """Weighted sum over the judges, [B, G]; NaN where a judge gave no score."""


Drawn = TypeVar("Drawn")
Options = TypeVar("Options", bound=AlgorithmOptions)


@dataclass(slots=True, kw_only=True)
class Rollout(Generic[Drawn]):
    """What a step draws for a micro-batch before its updates, without gradient."""

    group: Group
    drawn: Drawn
    """What the algorithm trains on."""
    judged: Judged | None = None
    """None for an algorithm whose loss judges images of its own."""
    advantages: Tensor = field(default_factory=lambda: torch.zeros(0))
    """[B·G], where the algorithm has scores."""
    metrics: dict[str, Tensor | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmOutput:
    """The loss of a micro-batch."""

    loss: Tensor
    metrics: Mapping[str, Tensor]
    """Means over images."""
    maxima: Mapping[str, Tensor] = field(default_factory=dict)
    judged: Judged | None = None
    """Images that the loss has judged itself."""


class Algorithm(ABC, Generic[Options, Drawn]):
    """How scores of sampled images become a gradient of the denoiser."""

    def __init__(self, context: PhaseContext, config: ReinforceConfig, options: Options) -> None:
        self.context = context
        self.config = config
        self.options = options
        self.process = context.model.generator.process
        self.names = [name for name, weight in self.config.reward_weights.items() if weight]
        self.weights = torch.tensor([self.config.reward_weights[name] for name in self.names])

    @abstractmethod
    def rollouts(self, groups: Sequence[Group]) -> list[Rollout[Drawn]]:
        """Draw what this rank's micro-batches of a step train on; it has no gradient.

        Raises:
            StepAbandoned: the images cannot be scored.
        """

    @abstractmethod
    def loss(self, rollout: Rollout[Drawn]) -> AlgorithmOutput:
        """Return the loss of a micro-batch under the present policy, a mean over its images."""

    def policy(self, condition: Condition) -> Denoise:
        """Return the denoiser with guidance, as it samples."""
        return self.context.model.generator.guided(condition, self.config.guidance_scale)

    def outputs(self, latents: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the policy's outputs with gradient; the unconditional branch has none."""
        guidance, engine = guidance_of(self.config.guidance_scale), self.context.parts["generator"]
        *before, full = (keep_only(sources, latents) for sources, _ in guidance)
        conditional = engine(latents, time, condition, full)
        with torch.no_grad():
            outputs = [self.context.model.generator(latents, time, condition, k) for k in before]
        return combine([*outputs, conditional], guidance)

    def start_outputs(self, latents: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the outputs of the starting generator, with guidance and without gradient.

        With adapters, the starting generator is the model without them.
        """
        start = self.context.starting_generator
        if start is None:
            raise RuntimeError("reinforce needs the starting generator")
        guidance = guidance_of(self.config.guidance_scale)
        outputs = [
            start(latents, time, condition, keep_only(sources, latents)) for sources, _ in guidance
        ]
        return combine(outputs, guidance)

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

    def rewards(self, scores: dict[str, Tensor], size: int) -> Tensor:
        """Return the weighted sum of scores [B·G], as groups [B, G]."""
        stacked = torch.stack([scores[name] for name in self.names])
        total = torch.einsum("rn,r->n", stacked, self.weights.to(stacked))
        return rearrange(total, "(b g) -> b g", g=size)


AlgorithmClass = Callable[[PhaseContext, ReinforceConfig, Any], Algorithm[Any, Any]]
"""(context, section of the phase, options of the algorithm) -> algorithm."""
