"""Autoencode: train the decoder's VAE (only for a base from scratch)."""

from __future__ import annotations

import torch

from train.data.dataset import square_pixels
from train.phases.base import MicroBatch, PhaseContext, StepOutput


class Autoencode:
    """Reconstruct pixels; keep every latent channel near mean 0 and variance 1."""

    name = "autoencode"
    owns = ("autoencoder",)
    material = "samples"
    replays = False
    compares = None
    dropout = True

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.config = context.config.autoencode
        self.batch_size = self.config.batch_size

    def loss(self, part: MicroBatch) -> StepOutput:
        """Return L1 + 5 MSE of the reconstruction, and the pull on the latents' moments."""
        side = self.context.model.config.image_size
        images = [self.context.training_set.image(sample.image) for sample in part.samples]
        pixels = torch.stack([square_pixels(image, side) for image in images])
        pixels = pixels.to(self.context.device)
        drawn, latents = self.context.parts["autoencoder"](pixels)
        error = drawn - pixels
        spread, middle = torch.var_mean(latents, dim=(0, 2, 3))
        moments = (middle.pow(2) + (spread - 1).pow(2)).mean()
        squared = error.pow(2).mean()
        loss = error.abs().mean() + 5 * squared + self.config.moment_weight * moments
        return StepOutput(loss, {"mse": squared.detach(), "moments": moments.detach()})
