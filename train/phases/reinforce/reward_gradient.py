"""The gradient of the judge itself, for judges that are differentiable."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from emosym.diffusion.processes import sample
from emosym.tasks.affect import AFFECT_PROMPT
from train.phases.base import PhaseContext
from train.phases.reinforce.algorithm import Algorithm, AlgorithmOutput, Group, Judged, Rollout
from train.phases.reinforce.config import DirectOptions, ReinforceConfig
from train.phases.reinforce.judging import differentiable


class Unfinished(NamedTuple):
    """Latents [B·G, C, H, W] on their way to an image, and their times [B·G]."""

    latents: Tensor
    time: Tensor


class RewardGradient(Algorithm[DirectOptions, Unfinished]):
    """The gradient of the judge, through the image that one sampling step predicts.

    Only our own understanding branch is differentiable. Ref: ReFL (arXiv 2304.05977); AlignProp
    (arXiv 2310.03739); DRaFT (arXiv 2309.17400).
    """

    def __init__(
        self, context: PhaseContext, config: ReinforceConfig, options: DirectOptions
    ) -> None:
        super().__init__(context, config, options)
        self.judges = differentiable(self.names, config.judges)

    @torch.no_grad()
    def rollouts(self, groups: Sequence[Group]) -> list[Rollout[Unfinished]]:
        """Sample up to one step in the last part of the schedule."""
        return [Rollout(group=group, drawn=self._draw(group)) for group in groups]

    def loss(self, rollout: Rollout[Unfinished]) -> AlgorithmOutput:
        """Predict the image at that step, and return minus its mean reward."""
        context, group, (latents, time) = self.context, rollout.group, rollout.drawn
        condition = group.condition
        outputs = self.outputs(latents, time, condition)
        predicted = self.process.predict(latents, outputs, time).clean
        with _frozen(context.model.autoencoder):
            pixels = context.model.autoencoder.decode(predicted).clamp(-1, 1)
        seen = context.reference.understand_pixels([AFFECT_PROMPT] * len(pixels), pixels)
        labels = context.model.config.emotions
        scores = {name: judge(seen, group.requests, labels) for name, judge in self.judges.items()}
        rewards = self.rewards(scores, group.size)
        loss, kl = self.add_kl(
            -rewards.mean(), lambda: self.output_kl(latents, time, condition, outputs)
        )
        judged_images = Judged(
            images=self.to_images(pixels),
            scores={name: each.detach() for name, each in scores.items()},
            rewards=rewards.detach(),
        )
        return AlgorithmOutput(loss=loss, metrics=kl, judged=judged_images)

    def _draw(self, group: Group) -> Unfinished:
        config, context = self.config, self.context
        noise = group.normal(*context.model.autoencoder.latent_shape)
        # The step with gradient is one for all ranks.
        late = max(1, round(config.num_inference_steps * self.options.gradient_range))
        place = config.num_inference_steps - late + int(group.batch.draws.uniform(1).item() * late)
        policy = self.policy(group.condition)
        latents = sample(policy, self.process, noise, config.num_inference_steps, place)
        time = self.process.timesteps(config.num_inference_steps)[place]
        return Unfinished(latents, time.to(latents).expand(len(latents)))


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
