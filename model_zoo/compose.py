"""A new model from a pretrained backbone and the decoder of another model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from emosym.model import EmoSym
from model_zoo import zoo
from model_zoo.backbones import load_backbone
from model_zoo.decoders import load_decoder
from model_zoo.hub import local


def compose(
    backbone: str | Path,
    decoder: str | Path,
    *,
    reasoning_tokens: int,
    hidden: int = 256,
    pixels: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> EmoSym:
    """Return a model whose reasoner, heads and conditioner are new; the rest is pretrained.

    Args:
        backbone: Hugging Face folder or hub id of a model of `backbones.FAMILIES`.
        decoder: a zoo member or model folder, whose decoder and image size are taken. Where only
            understanding is trained any will do, `emosym-tiny` say.
        reasoning_tokens: K.
        hidden: width of the new heads' hidden layers. Ref: EmoSym §2.3, 256.
        pixels: fewest and most pixels of an image that the backbone reads; None keeps its own.
        dtype: type of the weights.
        seed: of the new weights.

    Raises:
        UserError: what cannot be loaded; another family.
    """
    source = zoo.folder_of(decoder)
    about = zoo.read_about(source)
    config = dataclasses.replace(about.model, reasoning_tokens=reasoning_tokens, hidden=hidden)
    reader, processor = load_backbone(local(backbone), dtype)
    if pixels is not None:
        processor.images.size = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
    denoiser, autoencoder = load_decoder(
        source / "decoder", config.image_size, about.text_tokens, config.shift, dtype
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EmoSym(
            config,
            backbone=reader,
            processor=processor,
            denoiser=denoiser,
            autoencoder=autoencoder,
        )
    return model.to(dtype).eval()
