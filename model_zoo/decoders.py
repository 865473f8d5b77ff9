"""Diffusion decoders: the MMDiT flow model of Stable Diffusion 3, its text encoder, its VAE."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor, nn
from transformers import (
    BatchEncoding,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
)

from emosym.errors import UserError
from emosym.interfaces import TextFeatures
from emosym.process import Flow
from model_zoo.tokenizer import load_tokenizer, save_tokenizer
from model_zoo.weights import pretrained


class MMDiT(nn.Module):
    """SD3's transformer with a T5 text encoder, behind `emosym.interfaces.Denoiser`.

    The pooled vector is the mean of the T5 states, as wide as the tokens.
    Ref: Esser et al. 2024 (arXiv 2403.03206).
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        text_tokens: int,
        shift: float,
    ) -> None:
        super().__init__()
        self.process = Flow(shift)
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.text_tokens = text_tokens
        self.token_width: int = transformer.config.joint_attention_dim
        self.pooled_width: int = transformer.config.pooled_projection_dim
        if not text_encoder.config.d_model == self.token_width == self.pooled_width:
            raise UserError(
                "text encoder and transformer differ in width",
                got=f"d_model {text_encoder.config.d_model}, joint_attention_dim"
                f" {self.token_width}, pooled_projection_dim {self.pooled_width}",
                expected="three equal numbers",
            )

    def tokenize(self, prompts: Sequence[str]) -> BatchEncoding:
        """Return prompts as `text_tokens` positions each.

        Raises:
            UserError: a prompt is longer than the window; nothing is cut silently.
        """
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.text_tokens,
            padding_side="right",
        )
        length = max(map(len, tokens.input_ids))
        if length > self.text_tokens:
            longest = max(prompts, key=len)
            raise UserError(
                f"the prompt {longest[:60]!r}… is too long for the decoder's text encoder",
                got=f"{length} tokens",
                expected=f"at most {self.text_tokens}",
                fix="shorten the prompt",
            )
        return tokens

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encode prompts to features, zero at padding; raises as `tokenize`."""
        return self._encode(self.tokenize(prompts))

    def pool_text(self, texts: Sequence[str]) -> Tensor:
        """Return the pooled vectors [B, P] of texts of any length, each read whole."""
        return self._encode(self.tokenizer(list(texts), padding=True, padding_side="right")).pooled

    def _encode(self, tokens: BatchEncoding) -> TextFeatures:
        tokens = tokens.convert_to_tensors("pt").to(self.text_encoder.device)
        mask = tokens.attention_mask.bool()
        # The empty prompt has no token to attend to: keep one so that softmax has a support.
        support = mask.clone()
        support[:, 0] = True
        states = self.text_encoder(
            input_ids=tokens.input_ids, attention_mask=support
        ).last_hidden_state
        states = states * mask[..., None]
        pooled = states.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return TextFeatures(states, pooled)

    def predict(self, latents: Tensor, time: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """Return the velocity at noise levels [B] in [0, 1]."""
        return self.transformer(
            hidden_states=latents.to(tokens.dtype),
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            timestep=time * 1000,
            return_dict=False,
        )[0]


class VAE(nn.Module):
    """A diffusers AutoencoderKL behind `emosym.interfaces.Autoencoder`."""

    def __init__(self, model: AutoencoderKL, image_size: int) -> None:
        super().__init__()
        self.model = model
        config = model.config
        side = image_size // 2 ** (len(config.block_out_channels) - 1)
        self.latent_shape = (config.latent_channels, side, side)
        self.scale = config.scaling_factor
        self.shift = config.shift_factor or 0.0

    def encode(self, pixels: Tensor) -> Tensor:
        """Return normalised latents, the mode of the posterior."""
        return (
            self.model.encode(pixels.to(self.model.dtype)).latent_dist.mode() - self.shift
        ) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Return pixels, not clipped."""
        return self.model.decode((latents / self.scale + self.shift).to(self.model.dtype)).sample

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructed pixels and latents, for training."""
        latents = self.encode(pixels)
        return self.decode(latents), latents


def load_decoder(
    folder: Path, image_size: int, text_tokens: int, shift: float, dtype: torch.dtype
) -> tuple[MMDiT, VAE]:
    """Load a denoiser and an autoencoder from a folder in the diffusers layout.

    Raises:
        UserError: unreadable files, weights or an image size that do not fit.
    """
    transformer = pretrained(SD3Transformer2DModel, folder / "transformer", torch_dtype=dtype)
    text_encoder = pretrained(T5EncoderModel, folder / "text_encoder", dtype=dtype)
    tokenizer = load_tokenizer(folder / "tokenizer", text_encoder.config.vocab_size)
    vae = pretrained(AutoencoderKL, folder / "vae", torch_dtype=dtype)
    denoiser = MMDiT(transformer, text_encoder, tokenizer, text_tokens, shift)
    autoencoder = VAE(vae, image_size)
    _check_size(denoiser, autoencoder, image_size, folder)
    return denoiser, autoencoder


def new_decoder(
    transformer: dict,
    text_encoder: dict,
    vae: dict,
    tokenizer: PreTrainedTokenizerBase,
    image_size: int,
    text_tokens: int,
    shift: float,
) -> tuple[MMDiT, VAE]:
    """Build a decoder with random weights from diffusers and transformers configs."""
    autoencoder = VAE(AutoencoderKL(**vae), image_size)
    text = T5EncoderModel(T5Config(**text_encoder))
    denoiser = MMDiT(SD3Transformer2DModel(**transformer), text, tokenizer, text_tokens, shift)
    _check_size(denoiser, autoencoder, image_size, "the preset")
    return denoiser, autoencoder


def save_decoder(denoiser: MMDiT, autoencoder: VAE, folder: Path) -> None:
    """Write a decoder in the diffusers layout."""
    denoiser.transformer.save_pretrained(folder / "transformer")
    denoiser.text_encoder.save_pretrained(folder / "text_encoder")
    save_tokenizer(denoiser.tokenizer, folder / "tokenizer")
    autoencoder.model.save_pretrained(folder / "vae")
    for part in ("transformer", "vae"):
        path = folder / part / "config.json"
        config = json.loads(path.read_text())
        # diffusers writes where it was loaded from: private, and no property of the model.
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")


def _check_size(denoiser: MMDiT, autoencoder: VAE, image_size: int, source: object) -> None:
    """Refuse an image size that the autoencoder or the transformer cannot cut into patches."""
    config = denoiser.transformer.config
    grain = config.patch_size * 2 ** (len(autoencoder.model.config.block_out_channels) - 1)
    if image_size % grain or image_size > grain * config.pos_embed_max_size:
        raise UserError(
            f"image_size does not fit the decoder of {source}",
            got=image_size,
            expected=f"a multiple of {grain}, at most {grain * config.pos_embed_max_size}",
        )
