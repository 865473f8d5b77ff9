"""Autoencode: train the decoder's VAE (only for a base from scratch)."""

from __future__ import annotations

import torch

from train.data.dataset import square_pixels
from train.phases.base import Bench, Outcome, Slice


class Autoencode:
    """Reconstruct pixels; keep every latent channel near mean 0 and variance 1."""

    name = "autoencode"
    owns = ("autoencoder",)
    material = "samples"
    replays = False
    compares = None
    dropout = True

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.config = bench.config.autoencode
        self.batch_size = self.config.batch_size

    def loss(self, part: Slice) -> Outcome:
        """Return L1 + 5 MSE of the reconstruction, and the pull on the latents' moments."""
        side = self.bench.model.config.image_size
        images = [self.bench.corpus.image(sample.image) for sample in part.samples]
        pixels = torch.stack([square_pixels(image, side) for image in images])
        pixels = pixels.to(self.bench.device)
        drawn, latents = self.bench.parts["autoencoder"](pixels)
        error = drawn - pixels
        spread, middle = torch.var_mean(latents, dim=(0, 2, 3))
        moments = (middle.pow(2) + (spread - 1).pow(2)).mean()
        squared = error.pow(2).mean()
        loss = error.abs().mean() + 5 * squared + self.config.moment_weight * moments
        return Outcome(loss, {"mse": squared.detach(), "moments": moments.detach()})
