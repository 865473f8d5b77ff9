"""DiffusionNFT: reinforcement on the forward process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from emosym.diffusion.nft import nft_loss, optimality
from emosym.diffusion.processes import add_noise, sample, training_times
from emosym.models.generator import Condition
from train.phases.reinforce.algorithm import AlgorithmOutput, Group, Rollout
from train.phases.reinforce.config import NftOptions
from train.phases.reinforce.scored import ScoredAlgorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisedCopies:
    """Sampled images [B·G] that were noised again, several times each: [copies · B·G]."""

    target: Tensor
    """Latents of the images."""
    latents: Tensor
    """The same with noise."""
    time: Tensor
    old_outputs: Tensor | None
    """Outputs of the policy that sampled; None where no update lies between."""


class ForwardProcess(ScoredAlgorithm[NftOptions, list[NoisedCopies]]):
    """Sampled images are noised again; the denoiser moves towards good ones, away from bad ones.

    It keeps copies for each pass over the images. Ref: DiffusionNFT (arXiv 2509.16117).
    """

    def draw(self, group: Group) -> tuple[list[NoisedCopies], list[Image.Image]]:
        """Sample without noise, then noise the images anew for each pass."""
        shape = self.context.model.autoencoder.latent_shape
        condition = group.condition
        policy = self.policy(condition)
        clean = sample(policy, self.process, group.normal(*shape), self.config.num_inference_steps)
        copies = [self._copies(group, clean) for _ in range(self.config.num_iterations)]
        return copies, self.images(clean)

    def loss(self, rollout: Rollout[list[NoisedCopies]]) -> AlgorithmOutput:
        """Return the loss on the next noised copies."""
        noised, advantages = rollout.drawn.pop(0), rollout.advantages
        copies, latents, time = self.options.noised_copies, noised.latents, noised.time
        condition = self._repeated(rollout.group)
        outputs = self.outputs(latents, time, condition)
        loss = nft_loss(
            self.process,
            latents,
            time,
            noised.target,
            outputs,
            outputs.detach() if noised.old_outputs is None else noised.old_outputs,
            optimality(torch.cat([advantages] * copies)),
            self.options.nft_beta,
        ).mean()
        loss, kl = self.add_kl(loss, lambda: self.output_kl(latents, time, condition, outputs))
        return AlgorithmOutput(loss=loss, metrics=kl)

    def _copies(self, group: Group, clean: Tensor) -> NoisedCopies:
        copies = self.options.noised_copies
        levels = rearrange(group.normal(copies), "b s -> (s b)")
        noise = rearrange(group.normal(copies, *clean.shape[1:]), "b s ... -> (s b) ...")
        time = training_times(self.process, levels, "uniform")
        target = torch.cat([clean] * copies)
        latents = add_noise(self.process, target, noise, time)
        old, config = None, self.config
        if config.num_iterations * config.steps_per_generation > 1:
            old = self.policy(self._repeated(group))(latents, time)
        return NoisedCopies(target=target, latents=latents, time=time, old_outputs=old)

    def _repeated(self, group: Group) -> Condition:
        """Return the condition of each copy, [copies · B·G, ...]."""
        return group.condition.map(lambda each: torch.cat([each] * self.options.noised_copies))
