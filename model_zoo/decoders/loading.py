"""Loading and saving decoders in the diffusers layout: denoiser, text encoders, scheduler, VAE."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
)

from emosym.errors import UserError
from model_zoo.decoders.autoencoders import VAE, compression_factor
from model_zoo.decoders.denoisers import MMDiT, StableDiffusion, UNet
from model_zoo.decoders.prompt_encoders import ClipTextEncoder, PromptEncoder, T5TextEncoder
from model_zoo.decoders.prompt_tokens import PromptTokenizer, PromptTokenizers
from model_zoo.decoders.schedulers import read_scheduler, write_scheduler
from model_zoo.pretrained import load_pretrained, user_errors
from model_zoo.received.folder import MODEL_INDEX as INDEX
from model_zoo.received.folder import check_folder, read_object
from model_zoo.received.limits import check_special
from model_zoo.text.tokenizer import load_tokenizer, save_tokenizer, train_clip_tokenizer

FAMILIES: tuple[type[StableDiffusion], ...] = (UNet, MMDiT)
SUPPORTED = "UNet2DConditionModel (SD 1.x, 2.x, SDXL) or SD3Transformer2DModel (SD3, SD3.5)"
TEXT_MODELS: dict[str, tuple[Any, type[PreTrainedConfig]]] = {
    "CLIPTextModel": (CLIPTextModel, CLIPTextConfig),
    "CLIPTextModelWithProjection": (CLIPTextModelWithProjection, CLIPTextConfig),
    "T5EncoderModel": (T5EncoderModel, T5Config),
}
"""Architecture of a text encoder -> its model class (of transformers) and configuration class."""
SUFFIXES = ("", "_2", "_3")
"""What diffusers appends to `text_encoder` and `tokenizer`."""
T5_WINDOW = 256
"""Default prompt length of T5 in tokens, as in diffusers."""

TextModel = tuple[Any, PreTrainedTokenizerBase]
"""A text encoder of transformers with its tokenizer."""


def load_decoder(
    folder: Path, image_size: int | None, text_tokens: int | None, dtype: torch.dtype
) -> tuple[StableDiffusion, VAE]:
    """Load a denoiser and an autoencoder from a folder in the diffusers layout.

    Args:
        folder: with `unet` or `transformer`, text encoders, tokenizers, `scheduler` and `vae`.
        image_size: side of the images in pixels; None is the size of the denoiser's training.
        text_tokens: prompt length of T5; None is `T5_WINDOW`, or no T5.
        dtype: type of the weights.

    Raises:
        UserError: a family that is not supported; files that cannot be read; weights or an image
            size that do not fit.
    """
    check_folder(folder)
    family = _family(folder)
    network = load_pretrained(family.network_class, folder / family.folder, torch_dtype=dtype)
    text_models = []
    for suffix in SUFFIXES:
        source = folder / f"text_encoder{suffix}"
        if source.is_dir() or not suffix:
            model = load_pretrained(_text_class(source), source, dtype=dtype)
            check_special(model.config, source)
            tokenizer = load_tokenizer(folder / f"tokenizer{suffix}", model.config.vocab_size)
            text_models.append((model, tokenizer))
    vae = load_pretrained(AutoencoderKL, folder / "vae", torch_dtype=dtype)
    scheduler = read_scheduler(folder / "scheduler")
    zero_empty = _read_index(folder).get("force_zeros_for_empty_prompt", True)
    return _assemble(
        family, network, text_models, scheduler, vae, image_size, text_tokens, zero_empty, folder
    )


def load_prompt_tokenizers(folder: Path, text_tokens: int | None) -> PromptTokenizers:
    """Load the tokenizers of a decoder, without its weights.

    Args:
        folder: as for `load_decoder`.
        text_tokens: as for `load_decoder`.

    Raises:
        UserError: files that cannot be read.
    """
    check_folder(folder)
    clips: list[PromptTokenizer] = []
    t5 = None
    for suffix in SUFFIXES:
        source = folder / f"text_encoder{suffix}"
        if suffix and not source.is_dir():
            continue
        text_class = _text_class(source)
        with user_errors(source):
            config = text_class.config_class.from_pretrained(source)
        tokenizer = load_tokenizer(folder / f"tokenizer{suffix}", config.vocab_size)
        if text_class is T5EncoderModel:
            t5 = PromptTokenizer(tokenizer, text_tokens or T5_WINDOW)
        else:
            clips.append(PromptTokenizer(tokenizer, config.max_position_embeddings))
    return PromptTokenizers(clips, t5)


def new_decoder(
    spec: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    corpus: Iterable[str],
    image_size: int,
) -> tuple[StableDiffusion, VAE]:
    """Build a decoder with random weights from a preset.

    Args:
        spec: subfolder -> configuration (`unet` or `transformer`, text encoders that name their
            class in `architectures`, `scheduler`, `vae`), and optionally `text_tokens`.
        tokenizer: of T5.
        corpus: texts on which CLIP's tokenizers are trained, to the vocabulary size of `tokenizer`.
        image_size: side of the images in pixels.
    """
    family = next(family for family in FAMILIES if family.folder in spec)
    vae = AutoencoderKL(**spec["vae"])
    text_models = [
        _new_text_model(spec[f"text_encoder{suffix}"], tokenizer, corpus)
        for suffix in SUFFIXES
        if f"text_encoder{suffix}" in spec
    ]
    network = family.network_class(**spec[family.folder])
    return _assemble(
        family,
        network,
        text_models,
        spec["scheduler"],
        vae,
        image_size,
        spec.get("text_tokens"),
        True,
        "the preset",
    )


def save_decoder(denoiser: StableDiffusion, autoencoder: VAE, folder: Path) -> None:
    """Write a decoder in the diffusers layout; diffusers opens the folder as a pipeline."""
    denoiser.network.save_pretrained(folder / denoiser.folder)
    for suffix, encoder in zip(SUFFIXES, denoiser.text_encoder.encoders, strict=False):
        encoder.model.save_pretrained(folder / f"text_encoder{suffix}")
        save_tokenizer(encoder.tokenizer, folder / f"tokenizer{suffix}")
    write_scheduler(denoiser.scheduler, folder / "scheduler")
    autoencoder.model.save_pretrained(folder / "vae")
    for part in (denoiser.folder, "vae"):
        path = folder / part / "config.json"
        config = json.loads(path.read_text())
        # diffusers records the path it loaded from, which is private and not part of the model.
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")
    if denoiser.pipeline is not None:
        (folder / INDEX).write_text(json.dumps(_new_index(denoiser), indent=2) + "\n")


def is_diffusers(folder: Path) -> bool:
    """Return whether a folder holds a decoder in the diffusers layout."""
    return any((folder / name).exists() for name in (INDEX, *(f.folder for f in FAMILIES)))


def _assemble(
    family: type[StableDiffusion],
    network: Any,
    text_models: list[TextModel],
    scheduler: Mapping[str, Any],
    vae: AutoencoderKL,
    image_size: int | None,
    text_tokens: int | None,
    zero_empty: bool,
    source: object,
) -> tuple[StableDiffusion, VAE]:
    encoder = _prompt_encoder(family, network, text_models, text_tokens, zero_empty, source)
    size = _native_size(network, vae, source) if image_size is None else image_size
    _check_size(network, vae, size, source)
    return family(network, encoder, scheduler, size), VAE(vae, size)


def _prompt_encoder(
    family: type[StableDiffusion],
    network: Any,
    text_models: list[TextModel],
    text_tokens: int | None,
    zero_empty: bool,
    source: object,
) -> PromptEncoder:
    """Combine text encoders; refuse combinations that `PromptEncoder` does not list."""
    names = [type(model).__name__ for model, _ in text_models]
    plain, projected, t5 = TEXT_MODELS
    combinations = (
        ([plain], [plain, projected])
        if family is UNet
        else ([t5], [projected, projected], [projected, projected, t5])
    )
    if names not in combinations:
        raise UserError(
            f"the text encoders of {source} do not fit its denoiser",
            got=" + ".join(names) or "none",
            expected=", or ".join(" + ".join(each) for each in combinations),
        )
    several = len(text_models) > 1
    clips = [
        ClipTextEncoder(model, tokenizer, penultimate=several)
        for model, tokenizer in text_models
        if type(model).__name__ != t5
    ]
    if family is UNet:
        if text_tokens is not None:
            raise UserError(
                "text_tokens is set, but the decoder has no T5",
                got=text_tokens,
                fix="leave it out",
            )
        zero_empty = zero_empty and several
        width = network.config.cross_attention_dim
        return PromptEncoder(clips, None, width=width, zero_empty=zero_empty)
    window = T5_WINDOW if text_tokens is None else text_tokens
    last = None
    if names[-1] == t5:
        last = T5TextEncoder(*text_models[-1], window, masked=not several)
    width = network.config.joint_attention_dim
    return PromptEncoder(clips, last, width=width, blank=0 if last else window)


def _new_text_model(
    config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, corpus: Iterable[str]
) -> TextModel:
    config = dict(config)
    model_class, config_class = TEXT_MODELS[config.pop("architectures")[0]]
    if config_class is CLIPTextConfig:
        window = config["max_position_embeddings"]
        tokenizer = train_clip_tokenizer(corpus, len(tokenizer), window)
        config["bos_token_id"] = tokenizer.bos_token_id
    config |= {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return model_class(config_class(**config)), tokenizer


def _family(folder: Path) -> type[StableDiffusion]:
    """Return the family whose class is named in the configuration of the folder's denoiser."""
    for family in FAMILIES:
        source = folder / family.folder
        if not source.is_dir():
            continue
        network_class: Any = family.network_class
        with user_errors(source):
            name = network_class.load_config(source).get("_class_name")
        if name != network_class.__name__:
            raise UserError(
                f"the decoder in {folder} is not supported",
                got=f"{name} in {family.folder}",
                expected=SUPPORTED,
            )
        return family
    raise UserError(
        f"{folder} holds no decoder",
        got=_read_index(folder).get("_class_name") or "neither unet nor transformer",
        expected=SUPPORTED,
    )


def _text_class(source: Path) -> Any:
    """Return the model class of a text encoder's folder."""
    with user_errors(source):
        name = (PreTrainedConfig.get_config_dict(source)[0].get("architectures") or [None])[0]
    if name not in TEXT_MODELS:
        raise UserError(
            f"the text encoder in {source} is not supported",
            got=name or "no architecture",
            expected=" or ".join(TEXT_MODELS),
        )
    return TEXT_MODELS[name][0]


def _read_index(folder: Path) -> dict[str, Any]:
    """Return the content of `model_index.json`; empty if there is no such file."""
    if not (folder / INDEX).is_file():
        return {}
    return read_object(folder / INDEX)


def _new_index(denoiser: StableDiffusion) -> dict[str, Any]:
    """Return the `model_index.json` with which diffusers opens the folder as a pipeline."""
    index: dict[str, Any] = {
        "_class_name": denoiser.pipeline,
        denoiser.folder: ["diffusers", type(denoiser.network).__name__],
        "scheduler": ["diffusers", denoiser.scheduler["_class_name"]],
        "vae": ["diffusers", AutoencoderKL.__name__],
    }
    encoders = denoiser.text_encoder.encoders
    for suffix, encoder in zip(SUFFIXES, encoders, strict=False):
        index[f"text_encoder{suffix}"] = ["transformers", type(encoder.model).__name__]
        index[f"tokenizer{suffix}"] = ["transformers", type(encoder.tokenizer).__name__]
    if denoiser.pipeline == "StableDiffusion3Pipeline" and len(encoders) < len(SUFFIXES):
        index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    if denoiser.pipeline == "StableDiffusionXLPipeline":
        index["force_zeros_for_empty_prompt"] = denoiser.text_encoder.zero_empty
    return index


def _native_size(network: Any, vae: AutoencoderKL, source: object) -> int:
    """Return the side in pixels of the images on which a denoiser was trained."""
    sample = network.config.sample_size
    if not isinstance(sample, int):
        raise UserError(
            f"the decoder of {source} has no square native image size",
            got=f"sample_size {sample}",
            fix="set the image size",
        )
    return sample * compression_factor(vae)


def _check_size(network: Any, vae: Any, image_size: int, source: object) -> None:
    """Refuse unequal numbers of channels, and an image size that patches do not divide."""
    config = network.config
    channels = (config.in_channels, config.out_channels, vae.config.latent_channels)
    if len(set(channels)) > 1:
        raise UserError(
            f"the denoiser of {source} does not fit the autoencoder",
            got=f"{channels[0]} channels in and {channels[1]} out, latents of {channels[2]}",
            expected="three equal numbers",
        )
    multiple, largest = compression_factor(vae), None
    if "pos_embed_max_size" in config:
        multiple *= config.patch_size
        largest = multiple * config.pos_embed_max_size
    too_large = largest is not None and image_size > largest
    if image_size < multiple or image_size % multiple or too_large:
        raise UserError(
            f"image_size does not fit the decoder of {source}",
            got=image_size,
            expected=f"a multiple of {multiple}" + (f", at most {largest}" if largest else ""),
        )
