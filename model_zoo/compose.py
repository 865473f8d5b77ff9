"""Composing a new model from a pretrained backbone and a pretrained decoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch

from emosym.diffusion.processes import TimestepSpacing
from emosym.errors import UserError
from emosym.models.model import EmoSym, ModelConfig
from model_zoo import catalogue, zoo
from model_zoo.backbones.qwen_vl import load_backbone
from model_zoo.decoders.autoencoders import VAE
from model_zoo.decoders.denoisers import StableDiffusion
from model_zoo.decoders.loading import is_diffusers, load_decoder
from model_zoo.hub import MODEL_FILES, local_folder
from model_zoo.received.limits import check_pixels

SAMPLING = {
    "StableDiffusionPipeline": (50, 7.5),
    "StableDiffusionXLPipeline": (50, 5.0),
    "StableDiffusion3Pipeline": (28, 7.0),
}
"""Pipeline of diffusers -> its default number of steps and guidance scale."""
DECODER_FILES = [
    f"{part}/{pattern}"
    for part in ("unet", "transformer", "text_encoder*", "tokenizer*", "scheduler", "vae")
    for pattern in MODEL_FILES
]
"""Patterns of the component folders of a decoder on the hub (not its single-file checkpoints)."""
VARIANTS = ["*.fp16*", "*non_ema*"]
"""Patterns of further copies of the weights, which are not downloaded."""
REASONING_TOKENS = 8
"""Default number of reasoning tokens."""
UNDERSTANDER_KEYS = ("reasoning_tokens", "hidden", "emotions", "knowledge_encoder", "tasks")
"""Keys of `ModelConfig` that belong to the understander."""


def compose(
    backbone: str | Path,
    decoder: str | Path,
    *,
    reasoning_tokens: int | None = None,
    hidden: int = 256,
    conditioner: Literal["word", "connector"] = "word",
    pixels: tuple[int, int] | None = None,
    image_size: int | None = None,
    timestep_spacing: TimestepSpacing | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> EmoSym:
    """Return a model with new reasoner, heads and conditioner; the rest is pretrained.

    Args:
        backbone: Hugging Face folder or hub id of a model of `qwen_vl.FAMILIES`; or a zoo member
            or model folder, whose whole understander is taken, with reasoner and heads.
        decoder: zoo member or model folder, whose decoder is taken with its image size, steps and
            guidance; or folder or hub id in the diffusers layout. If only understanding will be
            trained, any decoder will do, for example that of `emosym-tiny`.
        reasoning_tokens: K of a new reasoner; None is `REASONING_TOKENS`.
        hidden: width of the hidden layers of new heads. Ref: 256 in EmoSym, model (docs/papers.md).
        conditioner: see `ModelConfig.conditioner`.
        pixels: minimum and maximum of an image's pixels after resizing for the backbone; None
            keeps the backbone's values.
        image_size: side of generated images in pixels; None is the decoder's native size.
        timestep_spacing: see `schedulers.process_of`; None keeps that of the decoder.
        dtype: type of the weights.
        seed: of the new weights.

    Raises:
        UserError: parts that cannot be loaded, are not supported, or do not fit each other.
    """
    denoiser, autoencoder, config = _load_decoder(decoder, image_size, dtype)
    if timestep_spacing is not None:
        denoiser.set_timestep_spacing(timestep_spacing)
    config = dataclasses.replace(
        config, conditioner=conditioner, image_size=autoencoder.image_size, hidden=hidden
    )
    donor = _understander_donor(backbone, reasoning_tokens, dtype)
    if donor is None:
        network, processor = load_backbone(local_folder(backbone), dtype)
        tokens = REASONING_TOKENS if reasoning_tokens is None else reasoning_tokens
        config = dataclasses.replace(config, reasoning_tokens=tokens, tasks=[])
    else:
        parts = zoo.components(donor)
        network, processor = parts.backbone, parts.processor
        width = donor.config.knowledge_width or parts.denoiser.knowledge_width
        kept = {name: getattr(donor.config, name) for name in UNDERSTANDER_KEYS}
        config = dataclasses.replace(config, **kept, knowledge_width=width)
    if pixels is not None:
        check_pixels(*pixels, "compose")
        processor.images.size = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EmoSym(
            config,
            backbone=network,
            processor=processor,
            denoiser=denoiser,
            autoencoder=autoencoder,
        )
    if donor is not None:
        model.understander = donor.understander
    return model.to(dtype).eval()


def _understander_donor(
    backbone: str | Path, reasoning_tokens: int | None, dtype: torch.dtype
) -> EmoSym | None:
    """Return the model whose whole understander is taken; None for a plain backbone."""
    if not catalogue.is_model(backbone):
        return None
    donor = zoo.load(backbone, dtype)
    own = donor.config.reasoning_tokens
    if reasoning_tokens not in (None, own):
        raise UserError(
            f"the understander of {backbone} has another number of reasoning tokens",
            got=reasoning_tokens,
            expected=own,
            fix=f"leave the number out, or use {Path(backbone) / 'backbone'} alone",
        )
    return donor


def _load_decoder(
    source: str | Path, image_size: int | None, dtype: torch.dtype
) -> tuple[StableDiffusion, VAE, ModelConfig]:
    """Load a decoder, and the model configuration to start from."""
    path = Path(source)
    on_hub = not path.exists() and len(path.parts) == 2 and not path.is_absolute()
    if on_hub or is_diffusers(path):
        folder = local_folder(source, ["model_index.json", *DECODER_FILES], VARIANTS)
        denoiser, autoencoder = load_decoder(folder, image_size, None, dtype)
        steps, guidance = SAMPLING.get(denoiser.pipeline or "", (28, 7.0))
        return denoiser, autoencoder, ModelConfig(steps=steps, guidance=guidance)
    folder = catalogue.folder_of(source)
    saved = zoo.read_config(folder)
    size = saved.model.image_size if image_size is None else image_size
    denoiser, autoencoder = load_decoder(folder / "decoder", size, saved.text_tokens, dtype)
    return denoiser, autoencoder, saved.model
