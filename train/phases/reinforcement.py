"""How judged images move the denoiser: by their log-probabilities, or by the forward process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from emosym.exploring import Explored, explore, log_ratios
from emosym.generator import Denoise
from emosym.nft import ADVANTAGE_CAP, nft_loss, optimality
from emosym.process import Process, integrate, noised, training_times
from emosym.transitions import EXPLORATIONS, Exploration
from train.config import ReinforceConfig
from train.phases.base import Slice


@dataclass(frozen=True, slots=True)
class Drawn:
    """Sampled images, and where the denoiser is asked again to learn from them."""

    images: Tensor
    """Final latents [B, C, H, W]."""
    latents: Tensor
    """[S·B, C, H, W], all images at one place after the other."""
    time: Tensor
    """[S·B]"""
    explored: Explored | None = None


class PolicyGradient:
    """Some steps of the sampler are drawn; their log-ratios carry the advantages.

    Ref: Flow-GRPO (arXiv 2505.05470); windows: MixGRPO (arXiv 2507.21802).
    """

    def __init__(self, exploration: Exploration, config: ReinforceConfig, process: Process) -> None:
        self.exploration, self.config, self.process = exploration, config, process
        self.eta = exploration.eta if config.noise is None else config.noise

    def sample(self, denoise: Denoise, noise: Tensor, part: Slice) -> Drawn:
        """Draw images from noise [B, C, H, W]; the window is where the step's draws put it."""
        config = self.config
        group = len(noise) // len(part.samples)
        last = max(0, round(config.steps * config.window_within) - config.window)
        first = int(part.draws.uniform(1).item() * (last + 1))
        draws = part.normal(group, config.window, *noise.shape[1:]).to(noise.device)
        explored = explore(
            denoise,
            self.process,
            noise,
            steps=config.steps,
            drawn=range(first, first + config.window),
            draws=rearrange(draws, "b g s ... -> s (b g) ..."),
            exploration=self.exploration,
            eta=self.eta,
        )
        times = torch.stack([interval.here for interval in explored.intervals])
        return Drawn(
            explored.images,
            rearrange(explored.latents, "s b ... -> (s b) ..."),
            times.repeat_interleave(len(noise)),
            explored,
        )

    def loss(
        self, drawn: Drawn, outputs: Tensor, advantages: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the clipped surrogate of outputs [S·B, C, H, W] and advantages [B]."""
        outputs = rearrange(outputs, "(s b) ... -> s b ...", b=len(advantages))
        logs = log_ratios(drawn.explored, outputs, self.process, self.exploration, self.eta)
        ratio, clip = logs.exp(), self.config.clip
        gain = advantages.clamp(-ADVANTAGE_CAP, ADVANTAGE_CAP)
        surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
        return -surrogate.mean(), {
            "ratio_deviation": (ratio.detach() - 1).abs().max(),
        }


class ForwardProcess:
    """Final images are noised again; better ones attract. Ref: DiffusionNFT (arXiv 2509.16117)."""

    def __init__(self, config: ReinforceConfig, process: Process) -> None:
        self.config, self.process = config, process

    def sample(self, denoise: Denoise, noise: Tensor, part: Slice) -> Drawn:
        """Draw images from noise [B, C, H, W], and `window` noised copies of each."""
        config, copies = self.config, self.config.window
        group = len(noise) // len(part.samples)
        with torch.no_grad():
            images = integrate(denoise, self.process, noise, config.steps)
        levels = part.normal(group, copies).to(noise.device)
        time = training_times(self.process, rearrange(levels, "b g s -> (s b g)"), "uniform")
        draws = part.normal(group, copies, *noise.shape[1:]).to(noise.device)
        again = rearrange(draws, "b g s ... -> (s b g) ...")
        return Drawn(images, noised(self.process, torch.cat([images] * copies), again, time), time)

    def loss(
        self, drawn: Drawn, outputs: Tensor, advantages: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of outputs [S·B, C, H, W] and advantages [B]."""
        copies = len(drawn.latents) // len(drawn.images)
        each = nft_loss(
            self.process,
            drawn.latents,
            drawn.time,
            torch.cat([drawn.images] * copies),
            outputs,
            outputs.detach(),
            optimality(torch.cat([advantages] * copies)),
            self.config.strength,
        )
        return each.mean(), {}


ALGORITHMS = {
    **{name: partial(PolicyGradient, found) for name, found in EXPLORATIONS.items()},
    "nft": ForwardProcess,
}
"""Name -> how it learns."""
