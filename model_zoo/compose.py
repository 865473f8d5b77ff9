"""A new model from a pretrained backbone and a pretrained decoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch

from emosym.errors import UserError
from emosym.models.model import EmoSym, ModelConfig
from model_zoo import zoo
from model_zoo.backbones.qwen_vl import load_backbone
from model_zoo.decoders.autoencoders import VAE
from model_zoo.decoders.denoisers import StableDiffusion
from model_zoo.decoders.loading import is_diffusers, load_decoder
from model_zoo.hub import WHOLE, local

SAMPLING = {
    "StableDiffusionPipeline": (50, 7.5),
    "StableDiffusionXLPipeline": (50, 5.0),
    "StableDiffusion3Pipeline": (28, 7.0),
}
"""Default steps and guidance of a decoder's own pipeline in diffusers."""
PARTS = [
    f"{part}/{pattern}"
    for part in ("unet", "transformer", "text_encoder*", "tokenizer*", "scheduler", "vae")
    for pattern in WHOLE
]
"""What a decoder's repository is for us; beside it lie single files of all parts."""
VARIANTS = ["*.fp16*", "*non_ema*"]
NEW_TOKENS = 8
"""Reasoning tokens where nothing else is said."""
UNDERSTANDING = ("reasoning_tokens", "hidden", "emotions", "knowledge_encoder")
"""What of a model's configuration shapes its understander."""


def compose(
    backbone: str | Path,
    decoder: str | Path,
    *,
    reasoning_tokens: int | None = None,
    hidden: int = 256,
    conditioner: Literal["word", "connector"] = "word",
    pixels: tuple[int, int] | None = None,
    image_size: int | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> EmoSym:
    """Return a model whose reasoner, heads and conditioner are new; the rest is pretrained.

    Args:
        backbone: Hugging Face folder or hub id of a model of `backbones.FAMILIES`; or a zoo member
            or model folder, whose understander is taken whole, with its reasoner and heads.
        decoder: a zoo member or model folder, whose decoder is taken with its image size, steps
            and guidance; or a folder or hub id in the diffusers layout.
            Where only understanding is trained any will do, `emosym-tiny` say.
        reasoning_tokens: K of a new reasoner; None makes `NEW_TOKENS`.
        hidden: width of the new heads' hidden layers. Ref: EmoSym §2.3, 256.
        conditioner: how states become conditioning tokens; see `ModelConfig.conditioner`.
        pixels: fewest and most pixels of an image that the backbone reads; None keeps its own.
        image_size: side of generated images in pixels; None is the decoder's own.
        dtype: type of the weights.
        seed: of the new weights.

    Raises:
        UserError: what cannot be loaded; another family; an image size that does not fit.
    """
    denoiser, autoencoder, config = _decoder(decoder, image_size, dtype)
    config = dataclasses.replace(
        config, conditioner=conditioner, image_size=autoencoder.image_size, hidden=hidden
    )
    taught = _taught(backbone, reasoning_tokens, dtype)
    if taught is None:
        reader, processor = load_backbone(local(backbone), dtype)
        tokens = NEW_TOKENS if reasoning_tokens is None else reasoning_tokens
        config = dataclasses.replace(config, reasoning_tokens=tokens)
    else:
        reader, processor = taught.understander.backbone, taught.processor
        width = taught.config.knowledge_width or taught.generator.denoiser.knowledge_width
        kept = {name: getattr(taught.config, name) for name in UNDERSTANDING}
        config = dataclasses.replace(config, **kept, knowledge_width=width)
    if pixels is not None:
        processor.images.size = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EmoSym(
            config,
            backbone=reader,
            processor=processor,
            denoiser=denoiser,
            autoencoder=autoencoder,
        )
    if taught is not None:
        model.understander = taught.understander
    return model.to(dtype).eval()


def _taught(
    backbone: str | Path, reasoning_tokens: int | None, dtype: torch.dtype
) -> EmoSym | None:
    """Return the model whose understander is to be taken whole; None for a plain backbone."""
    if str(backbone) not in zoo.members() and not (Path(backbone) / zoo.CONFIG).is_file():
        return None
    taught = zoo.load(backbone, dtype)
    own = taught.config.reasoning_tokens
    if reasoning_tokens not in (None, own):
        raise UserError(
            f"the understander of {backbone} has its own reasoning tokens",
            got=reasoning_tokens,
            expected=own,
            fix=f"leave the number out, or take {Path(backbone) / 'backbone'} alone",
        )
    return taught


def _decoder(
    source: str | Path, image_size: int | None, dtype: torch.dtype
) -> tuple[StableDiffusion, VAE, ModelConfig]:
    """Load a decoder and what a model of it starts from."""
    path = Path(source)
    on_hub = not path.exists() and len(path.parts) == 2 and not path.is_absolute()
    if on_hub or is_diffusers(path):
        folder = local(source, ["model_index.json", *PARTS], VARIANTS)
        denoiser, autoencoder = load_decoder(folder, image_size, None, dtype)
        steps, guidance = SAMPLING.get(denoiser.pipeline, (28, 7.0))
        return denoiser, autoencoder, ModelConfig(steps=steps, guidance=guidance)
    folder = zoo.folder_of(source)
    about = zoo.read_about(folder)
    size = about.model.image_size if image_size is None else image_size
    return *load_decoder(folder / "decoder", size, about.text_tokens, dtype), about.model
