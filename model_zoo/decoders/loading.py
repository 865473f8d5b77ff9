"""Decoders as folders in the diffusers layout: a denoiser with its text encoders, and its VAE."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ModelMixin
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
)

from emosym.errors import UserError
from model_zoo.decoders.autoencoders import VAE, factor
from model_zoo.decoders.denoisers import MMDiT, StableDiffusion, UNet
from model_zoo.decoders.prompt_encoders import T5, Clip, PromptEncoder
from model_zoo.decoders.schedulers import read_scheduler, write_scheduler
from model_zoo.pretrained import pretrained, reading
from model_zoo.text.tokenizer import load_tokenizer, save_tokenizer, train_clip_tokenizer

FAMILIES: tuple[type[StableDiffusion], ...] = (UNet, MMDiT)
SUPPORTED = "UNet2DConditionModel (SD 1.x, 2.x, SDXL) or SD3Transformer2DModel (SD3, SD3.5)"
TEXT_MODELS: dict[str, tuple[type[PreTrainedModel], type[PreTrainedConfig]]] = {
    "CLIPTextModel": (CLIPTextModel, CLIPTextConfig),
    "CLIPTextModelWithProjection": (CLIPTextModelWithProjection, CLIPTextConfig),
    "T5EncoderModel": (T5EncoderModel, T5Config),
}
NUMBERS = ("", "_2", "_3")
"""What diffusers appends to `text_encoder` and `tokenizer`."""
T5_WINDOW = 256
"""Tokens that SD3 reads with T5 unless told otherwise, as in diffusers."""
INDEX = "model_index.json"

Read = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def load_decoder(
    folder: Path, image_size: int | None, text_tokens: int | None, dtype: torch.dtype
) -> tuple[StableDiffusion, VAE]:
    """Load a denoiser and an autoencoder from a folder in the diffusers layout.

    Args:
        folder: with `unet` or `transformer`, text encoders, tokenizers, `scheduler` and `vae`.
        image_size: side of the images in pixels; None is what the denoiser was made for.
        text_tokens: window of T5; None is 256 where there is a T5.
        dtype: type of the weights.

    Raises:
        UserError: a family that is not supported, unreadable files, weights or an image size that
            do not fit.
    """
    family = _family(folder)
    network = pretrained(family.network_class, folder / family.folder, torch_dtype=dtype)
    read = []
    for number in NUMBERS:
        source = folder / f"text_encoder{number}"
        if source.is_dir() or not number:
            model = pretrained(_text_class(source), source, dtype=dtype)
            tokenizer = load_tokenizer(folder / f"tokenizer{number}", model.config.vocab_size)
            read.append((model, tokenizer))
    vae = pretrained(AutoencoderKL, folder / "vae", torch_dtype=dtype)
    scheduler = read_scheduler(folder / "scheduler")
    zero_empty = _index(folder).get("force_zeros_for_empty_prompt", True)
    return _assemble(
        family, network, read, scheduler, vae, image_size, text_tokens, zero_empty, folder
    )


def new_decoder(
    spec: Mapping[str, Any],
    words: PreTrainedTokenizerBase,
    corpus: Iterable[str],
    image_size: int,
) -> tuple[StableDiffusion, VAE]:
    """Build a decoder with random weights from a preset.

    Args:
        spec: configurations by the names of their folders (`unet` or `transformer`, text encoders
            that name their class in `architectures`, `scheduler`, `vae`), and `text_tokens`.
        words: tokenizer of a T5.
        corpus: texts from which the tokenizer of a CLIP is trained, as large as `words`.
        image_size: side of the images, pixels.
    """
    family = next(family for family in FAMILIES if family.folder in spec)
    vae = AutoencoderKL(**spec["vae"])
    read = [
        _new_text_encoder(spec[f"text_encoder{number}"], words, corpus)
        for number in NUMBERS
        if f"text_encoder{number}" in spec
    ]
    network = family.network_class(**spec[family.folder])
    return _assemble(
        family,
        network,
        read,
        spec["scheduler"],
        vae,
        image_size,
        spec.get("text_tokens"),
        True,
        "the preset",
    )


def save_decoder(denoiser: StableDiffusion, autoencoder: VAE, folder: Path) -> None:
    """Write a decoder in the diffusers layout; whole pipelines open there too."""
    denoiser.network.save_pretrained(folder / denoiser.folder)
    for number, tower in zip(NUMBERS, denoiser.text_encoder.towers, strict=False):
        tower.model.save_pretrained(folder / f"text_encoder{number}")
        save_tokenizer(tower.tokenizer, folder / f"tokenizer{number}")
    write_scheduler(denoiser.scheduler, folder / "scheduler")
    autoencoder.model.save_pretrained(folder / "vae")
    for part in (denoiser.folder, "vae"):
        path = folder / part / "config.json"
        config = json.loads(path.read_text())
        # diffusers writes where it was loaded from: private, and no property of the model.
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")
    if denoiser.pipeline is not None:
        (folder / INDEX).write_text(json.dumps(_new_index(denoiser), indent=2) + "\n")


def is_diffusers(folder: Path) -> bool:
    """Tell whether a folder holds a decoder rather than a whole model."""
    return any((folder / name).exists() for name in (INDEX, *(f.folder for f in FAMILIES)))


def _assemble(
    family: type[StableDiffusion],
    network: ModelMixin,
    read: list[Read],
    scheduler: Mapping[str, Any],
    vae: AutoencoderKL,
    image_size: int | None,
    text_tokens: int | None,
    zero_empty: bool,
    source: object,
) -> tuple[StableDiffusion, VAE]:
    text = _prompt_encoder(family, network, read, text_tokens, zero_empty, source)
    size = _native_size(network, vae, source) if image_size is None else image_size
    _check_size(network, vae, size, source)
    return family(network, text, scheduler, size), VAE(vae, size)


def _prompt_encoder(
    family: type[StableDiffusion],
    network: ModelMixin,
    read: list[Read],
    text_tokens: int | None,
    zero_empty: bool,
    source: object,
) -> PromptEncoder:
    """Put text encoders together in one of the forms of `PromptEncoder`."""
    names = [type(model).__name__ for model, _ in read]
    plain, projected, t5 = TEXT_MODELS
    forms = (
        ([plain], [plain, projected])
        if family is UNet
        else ([t5], [projected, projected], [projected, projected, t5])
    )
    if names not in forms:
        raise UserError(
            f"the text encoders of {source} are none of those of its family",
            got=" + ".join(names) or "none",
            expected=", or ".join(" + ".join(form) for form in forms),
        )
    several = len(read) > 1
    clips = [Clip(*pair, penultimate=several) for pair in read if type(pair[0]).__name__ != t5]
    if family is UNet:
        if text_tokens is not None:
            raise UserError("text_tokens is the window of T5, but there is none", got=text_tokens)
        zero_empty = zero_empty and several
        width = network.config.cross_attention_dim
        return PromptEncoder(clips, None, width=width, zero_empty=zero_empty)
    window = T5_WINDOW if text_tokens is None else text_tokens
    last = T5(*read[-1], window, masked=not several) if names[-1] == t5 else None
    width = network.config.joint_attention_dim
    return PromptEncoder(clips, last, width=width, blank=0 if last else window)


def _new_text_encoder(
    config: Mapping[str, Any], words: PreTrainedTokenizerBase, corpus: Iterable[str]
) -> Read:
    config = dict(config)
    model_class, config_class = TEXT_MODELS[config.pop("architectures")[0]]
    tokenizer = words
    if config_class is CLIPTextConfig:
        window = config["max_position_embeddings"]
        tokenizer = train_clip_tokenizer(corpus, len(words), window)
        config["bos_token_id"] = tokenizer.bos_token_id
    config |= {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return model_class(config_class(**config)), tokenizer


def _family(folder: Path) -> type[StableDiffusion]:
    """Return the family of a folder, by the class that its denoiser's configuration names."""
    for family in FAMILIES:
        source = folder / family.folder
        if not source.is_dir():
            continue
        with reading(source):
            found = family.network_class.load_config(source).get("_class_name")
        if found != family.network_class.__name__:
            raise UserError(
                f"the decoder in {folder} is of a family that is not supported",
                got=f"{found} in {family.folder}",
                expected=SUPPORTED,
            )
        return family
    named = _index(folder).get("_class_name")
    raise UserError(
        f"{folder} holds no decoder",
        got=named or "neither unet nor transformer",
        expected=SUPPORTED,
    )


def _text_class(source: Path) -> type[PreTrainedModel]:
    with reading(source):
        found = (PreTrainedConfig.get_config_dict(source)[0].get("architectures") or [None])[0]
    if found not in TEXT_MODELS:
        raise UserError(
            f"the text encoder in {source} is not supported",
            got=found or "no architecture",
            expected=" or ".join(TEXT_MODELS),
        )
    return TEXT_MODELS[found][0]


def _index(folder: Path) -> dict[str, Any]:
    """Return what `model_index.json` says; nothing where there is none."""
    if not (folder / INDEX).is_file():
        return {}
    with reading(folder):
        return dict(json.loads((folder / INDEX).read_text()))


def _new_index(denoiser: StableDiffusion) -> dict[str, Any]:
    """Return what diffusers needs to open the folder as a pipeline."""
    index: dict[str, Any] = {
        "_class_name": denoiser.pipeline,
        denoiser.folder: ["diffusers", type(denoiser.network).__name__],
        "scheduler": ["diffusers", denoiser.scheduler["_class_name"]],
        "vae": ["diffusers", AutoencoderKL.__name__],
    }
    towers = denoiser.text_encoder.towers
    for number, tower in zip(NUMBERS, towers, strict=False):
        index[f"text_encoder{number}"] = ["transformers", type(tower.model).__name__]
        index[f"tokenizer{number}"] = ["transformers", type(tower.tokenizer).__name__]
    if denoiser.pipeline == "StableDiffusion3Pipeline" and len(towers) < len(NUMBERS):
        index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    if denoiser.pipeline == "StableDiffusionXLPipeline":
        index["force_zeros_for_empty_prompt"] = denoiser.text_encoder.zero_empty
    return index


def _native_size(network: ModelMixin, vae: AutoencoderKL, source: object) -> int:
    """Return the side in pixels of the images that a denoiser was made for."""
    sample = network.config.sample_size
    if not isinstance(sample, int):
        raise UserError(
            f"the decoder of {source} does not say for which square images it is",
            got=f"sample_size {sample}",
            fix="name the image size",
        )
    return sample * factor(vae)


def _check_size(network: ModelMixin, vae: AutoencoderKL, image_size: int, source: object) -> None:
    """Refuse latents of another kind, and an image size that cannot be cut into patches."""
    config = network.config
    channels = (config.in_channels, config.out_channels, vae.config.latent_channels)
    if len(set(channels)) > 1:
        raise UserError(
            f"the denoiser of {source} does not go with the autoencoder",
            got=f"{channels[0]} channels in and {channels[1]} out, latents of {channels[2]}",
            expected="three equal numbers",
        )
    grain, most = factor(vae), None
    if "pos_embed_max_size" in config:
        grain *= config.patch_size
        most = grain * config.pos_embed_max_size
    if image_size < grain or image_size % grain or image_size > (most or image_size):
        raise UserError(
            f"image_size does not fit the decoder of {source}",
            got=image_size,
            expected=f"a multiple of {grain}" + (f", at most {most}" if most else ""),
        )
