"""Autoencode: train the decoder's VAE (only for a base from scratch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emosym.models.model import EmoSym
from emosym.records import Sample
from train.data.dataset import square_pixels
from train.micro_batches import MicroBatch, gather
from train.phases.base import Phase, StepOutput
from train.ranges import check_positive, check_range


@dataclass(kw_only=True, slots=True)
class AutoencodeConfig:
    """Training of the decoder's VAE (only for a base from scratch)."""

    batch_size: int = 32
    """Images a step."""
    moment_weight: float = 0.05
    """Weight that keeps each latent channel near mean 0 and variance 1, so that no scale is
    needed."""

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size)
        check_range(math.inf, moment_weight=self.moment_weight)


class Autoencode(Phase[AutoencodeConfig, Sample]):
    """Reconstruct pixels; keep every latent channel near mean 0 and variance 1."""

    name = "autoencode"
    Config = AutoencodeConfig
    owns = ("autoencoder",)

    @classmethod
    def unfreezes(cls, config: AutoencodeConfig, model: EmoSym) -> Sequence[nn.Module]:
        """Return the autoencoder."""
        return [model.autoencoder]

    def prepare(self, batches: Sequence[MicroBatch[Sample]]) -> Sequence[Tensor | None]:
        """Return the latents of the whole step, where it has several micro-batches."""
        if len(batches) == 1:
            return [None]
        with torch.no_grad():
            encode = self.context.model.autoencoder.encode
            latents = [encode(self._pixels(batch)) for batch in batches]
        return [gather(batches, latents)] * len(batches)

    def loss(self, batch: MicroBatch[Sample]) -> StepOutput:
        """Return L1 + 5 MSE of the reconstruction, plus the weighted deviation of the moments."""
        pixels = self._pixels(batch)
        reconstructed, latents = self.context.parts["autoencoder"](pixels)
        error = reconstructed - pixels
        variance, mean = torch.var_mean(batch.join(latents, batch.prepared), dim=(0, 2, 3))
        moments = (mean.pow(2) + (variance - 1).pow(2)).mean()
        mse = error.pow(2).mean()
        loss = error.abs().mean() + 5 * mse + self.config.moment_weight * moments
        return StepOutput(loss, {"mse": mse.detach(), "moments": moments.detach()})

    def _pixels(self, batch: MicroBatch[Sample]) -> Tensor:
        """Return the images of a micro-batch, [B, 3, H, W]."""
        side = self.context.model.config.image_size
        images = [self.context.training_set.image(sample.image) for sample in batch.items]
        pixels = torch.stack([square_pixels(image, side) for image in images])
        return pixels.to(self.context.device)
