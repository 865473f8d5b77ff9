"""Autoencoders of latent diffusion."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from emosym.errors import UserError
from emosym.interfaces import Autoencoder


class VAE(Autoencoder):
    """A diffusers AutoencoderKL.

    A model with `force_upcast` (SDXL's) overflows in float16, so it computes in float32 instead.

    Args:
        model: the autoencoder.
        image_size: side of the images in pixels.

    Raises:
        UserError: an autoencoder whose latents are normalised per channel.
    """

    def __init__(self, model: AutoencoderKL, image_size: int) -> None:
        super().__init__()
        config: Any = model.config
        if config.latents_mean is not None or config.latents_std is not None:
            raise UserError(
                "an autoencoder whose latents are normalised per channel is not supported",
                got="latents_mean, latents_std",
                expected="scaling_factor and shift_factor",
            )
        self.model = model
        side = image_size // compression_factor(model)
        self.image_size = image_size
        self.latent_shape: tuple[int, int, int] = (config.latent_channels, side, side)
        self.scale: float = config.scaling_factor
        self.shift: float = config.shift_factor or 0.0

    def encode(self, pixels: Tensor) -> Tensor:
        """Return normalised latents [B, C, H', W']: the mode of the posterior."""
        model = self._model_in_its_dtype()
        return (model.encode(pixels.to(model.dtype)).latent_dist.mode() - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Return pixels [B, 3, H, W], not clipped."""
        model = self._model_in_its_dtype()
        return model.decode((latents / self.scale + self.shift).to(model.dtype)).sample

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructed pixels and latents, for training."""
        latents = self.encode(pixels)
        return self.decode(latents), latents

    def _model_in_its_dtype(self) -> Any:
        # At use, not at load: casting the whole EmoSym model casts this part too.
        config: Any = self.model.config
        if self.model.dtype == torch.float16 and config.force_upcast:
            self.model.float()
        return self.model


def compression_factor(model: AutoencoderKL) -> int:
    """Return the number of pixels per latent, along one side."""
    config: Any = model.config
    return 2 ** (len(config.block_out_channels) - 1)
