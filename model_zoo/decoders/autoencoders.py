"""Autoencoders of latent diffusion."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from emosym.errors import UserError
from emosym.interfaces import Autoencoder


class VAE(Autoencoder):
    """A diffusers AutoencoderKL behind `emosym.interfaces.Autoencoder`.

    One that says `force_upcast` overflows in float16 (SDXL's does): it computes in float32 there.

    Raises:
        UserError: latents that are normalised channel by channel.
    """

    def __init__(self, model: AutoencoderKL, image_size: int) -> None:
        super().__init__()
        config = model.config
        if config.latents_mean is not None or config.latents_std is not None:
            raise UserError(
                "an autoencoder whose latents are normalised channel by channel is not supported",
                got="latents_mean, latents_std",
                expected="scaling_factor and shift_factor",
            )
        self.model = model
        side = image_size // factor(model)
        self.image_size = image_size
        self.latent_shape = (config.latent_channels, side, side)
        self.scale = config.scaling_factor
        self.shift = config.shift_factor or 0.0

    def encode(self, pixels: Tensor) -> Tensor:
        """Return normalised latents, the mode of the posterior."""
        model = self._ready()
        return (model.encode(pixels.to(model.dtype)).latent_dist.mode() - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Return pixels, not clipped."""
        model = self._ready()
        return model.decode((latents / self.scale + self.shift).to(model.dtype)).sample

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructed pixels and latents, for training."""
        latents = self.encode(pixels)
        return self.decode(latents), latents

    def _ready(self) -> AutoencoderKL:
        # Here, not where it is loaded: whoever casts the whole model casts this part too.
        if self.model.dtype == torch.float16 and self.model.config.force_upcast:
            self.model.float()
        return self.model


def factor(model: AutoencoderKL) -> int:
    """Return pixels a latent, along a side."""
    return 2 ** (len(model.config.block_out_channels) - 1)
