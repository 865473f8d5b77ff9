"""Building, loading and saving of models.

A model folder holds `emosym.json` (the configuration), `heads.safetensors` (reasoner, heads,
conditioner), `backbone/` (Hugging Face layout), `decoder/` (diffusers layout) and, if one was
fitted, `emotion_space.safetensors`.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch

from emosym.config import load_config
from emosym.console.progress import progress
from emosym.errors import UserError
from emosym.files import owner_of_temporary, remove_leftovers, replace_folder, temporary_for
from emosym.models.emotion_space import EmotionSpace
from emosym.models.model import FORMAT, EmoSym, ModelConfig, check_range
from emosym.models.training_images import TrainingImages
from model_zoo.adapters import adapter_names, merge_lora
from model_zoo.backbones.processor import QwenVLProcessor
from model_zoo.backbones.qwen_vl import QwenVL, load_backbone, new_backbone
from model_zoo.catalogue import CONFIG, folder_of, preset
from model_zoo.decoders.autoencoders import VAE
from model_zoo.decoders.denoisers import StableDiffusion
from model_zoo.decoders.loading import (
    load_decoder,
    load_prompt_tokenizers,
    new_decoder,
    save_decoder,
)
from model_zoo.decoders.prompt_tokens import PromptTokenizers
from model_zoo.pretrained import quiet_progress, user_errors
from model_zoo.received.folder import check_folder, read_object
from model_zoo.received.limits import check_finite
from model_zoo.text.tokenizer import train_tokenizer

HEADS = "heads.safetensors"
EMOTION_SPACE = "emotion_space.safetensors"
TRAINING_IMAGES = "training_images.safetensors"
CARD = "README.md"
LONGEST_CARD = 1_000_000
"""Bytes of a model card that are read."""
ENTRIES = (CONFIG, HEADS, EMOTION_SPACE, TRAINING_IMAGES, CARD, "backbone", "decoder")
"""What a model folder holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderConfig:
    """The content of `emosym.json`."""

    model: ModelConfig
    text_tokens: int | None = None
    """Prompt length of the decoder's T5 in tokens; null is 256, or no T5."""

    def __post_init__(self) -> None:
        if self.text_tokens is not None:
            check_range("text_tokens", self.text_tokens, 1, 4096)


class Components(NamedTuple):
    """The parts of a model that come from transformers and diffusers."""

    backbone: QwenVL
    processor: QwenVLProcessor
    denoiser: StableDiffusion
    autoencoder: VAE


def components(model: EmoSym) -> Components:
    """Return a model's parts with the types of the zoo; raise TypeError for other types."""
    found = (
        model.understander.backbone,
        model.processor,
        model.generator.denoiser,
        model.autoencoder,
    )
    backbone, processor, denoiser, autoencoder = found
    if (
        isinstance(backbone, QwenVL)
        and isinstance(processor, QwenVLProcessor)
        and isinstance(denoiser, StableDiffusion)
        and isinstance(autoencoder, VAE)
    ):
        return Components(backbone, processor, denoiser, autoencoder)
    raise TypeError(f"not parts of the zoo: {', '.join(type(part).__name__ for part in found)}")


def load(
    name_or_path: str | Path, dtype: torch.dtype = torch.float32, *, with_space: bool = True
) -> EmoSym:
    """Load a member by name, or a model folder, in evaluation mode.

    Args:
        name_or_path: name or folder.
        dtype: type of the weights.
        with_space: False does not read its emotion space: it is to be replaced.

    Raises:
        UserError: an unknown name; not a model folder; files that cannot be read; another format;
            weights that are missing, unused or of another shape.
    """
    folder = folder_of(name_or_path)
    saved = read_config(folder)
    config = saved.model
    backbone, processor = load_backbone(folder / "backbone", dtype)
    denoiser, autoencoder = load_decoder(
        folder / "decoder", config.image_size, saved.text_tokens, dtype
    )
    model = EmoSym(
        config,
        backbone=backbone,
        processor=processor,
        denoiser=denoiser,
        autoencoder=autoencoder,
    )
    with user_errors(folder / HEADS):
        heads = safetensors.torch.load_file(folder / HEADS)
    check_finite(heads, folder / HEADS)
    model.load_head_state(heads)
    if with_space and (folder / EMOTION_SPACE).is_file():
        with user_errors(folder / EMOTION_SPACE):
            state = safetensors.torch.load_file(folder / EMOTION_SPACE)
        check_finite(state, folder / EMOTION_SPACE)
        shape = (1 + config.reasoning_tokens, backbone.width)
        model.space = EmotionSpace.from_state_dict(state, shape)
    if (folder / TRAINING_IMAGES).is_file():
        with user_errors(folder / TRAINING_IMAGES):
            state = safetensors.torch.load_file(folder / TRAINING_IMAGES)
        model.training_images = TrainingImages.from_state_dict(state)
    model.card = read_card(folder)
    return model.to(dtype).eval()


def prompt_tokenizers(name_or_path: str | Path) -> PromptTokenizers:
    """Load the tokenizers of a model's decoder, without its weights. Raises as `load`."""
    folder = folder_of(name_or_path)
    return load_prompt_tokenizers(folder / "decoder", read_config(folder).text_tokens)


def build(name: str, corpus: Iterable[str], seed: int) -> EmoSym:
    """Build a member with random weights and tokenizers trained on `corpus`."""
    return build_preset(preset(name), corpus, seed)


def build_preset(spec: dict[str, Any], corpus: Iterable[str], seed: int) -> EmoSym:
    """Build a model from the data of a preset, as `build` does; `spec` is not changed."""
    corpus = list(corpus)
    tokenizer = train_tokenizer(corpus, spec["vocabulary"])
    ids = {
        "image_token_id": "<|image_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    backbone_config = dict(spec["backbone"])
    backbone_config |= {k: tokenizer.convert_tokens_to_ids(token) for k, token in ids.items()}
    backbone_config["text_config"] = backbone_config["text_config"] | {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = ModelConfig(**spec["model"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone, processor = new_backbone(backbone_config, tokenizer, spec["image_processor"])
        denoiser, autoencoder = new_decoder(spec, tokenizer, corpus, config.image_size)
        model = EmoSym(
            config,
            backbone=backbone,
            processor=processor,
            denoiser=denoiser,
            autoencoder=autoencoder,
        )
    return model.eval()


def save(model: EmoSym, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
    """Write a model folder under a temporary name, then rename it; an old model is replaced.

    What a killed save of the same folder left is deleted; one process at a time may save a folder.
    Adapters are merged into the saved weights; a model folder never contains adapters.

    Args:
        model: the model; it is not changed.
        folder: the model folder to write.
        dtype: storage type of the weights; None keeps the type of each.

    Returns:
        `folder` as a path.

    Raises:
        UserError: `folder` exists and is not a model folder, holds other files, or cannot be
            written.
    """
    target = Path(folder)
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty and not (target / CONFIG).is_file():
        raise UserError(f"{target} exists and is not a model folder", fix="choose another folder")
    other = (
        [
            path.name
            for path in target.iterdir()
            if path.name not in ENTRIES and owner_of_temporary(path) not in ENTRIES
        ]
        if target.is_dir()
        else []
    )
    if other:  # they would be deleted with the old model
        raise UserError(
            f"{target} holds files that are no part of a model",
            got=", ".join(sorted(other)),
            fix="move them, or choose another folder",
        )
    temporary = temporary_for(target)
    try:
        temporary.mkdir(parents=True)
        merged = _merged(model, dtype)
        parts = components(merged)
        with quiet_progress():
            parts.backbone.model.save_pretrained(temporary / "backbone")
            parts.processor.save(temporary / "backbone")
            save_decoder(parts.denoiser, parts.autoencoder, temporary / "decoder")
        heads = {k: v.contiguous() for k, v in merged.head_state().items()}
        safetensors.torch.save_file(heads, temporary / HEADS)
        if model.space is not None:
            safetensors.torch.save_file(model.space.state_dict(), temporary / EMOTION_SPACE)
        if model.training_images is not None:
            looks = model.training_images.state_dict()
            safetensors.torch.save_file(looks, temporary / TRAINING_IMAGES)
        if model.card:
            (temporary / CARD).write_text(model.card, encoding="utf-8")
        config = FolderConfig(model=model.config, text_tokens=parts.denoiser.text_tokens)
        (temporary / CONFIG).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
        replace_folder(temporary, target)
        remove_leftovers(target)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"model folder {target} cannot be written", got=error, fix="free some space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def read_card(folder: Path) -> str:
    """Return a model folder's card; empty without one."""
    path = folder / CARD
    if not path.is_file():
        return ""
    with user_errors(path), path.open("rb") as file:
        return file.read(LONGEST_CARD).decode("utf-8", "replace")


def model_files(folder: Path) -> dict[str, str]:
    """Return relative path -> SHA-256 of all files of a model that change what it predicts.

    These are all but the card, the statistics of the training images, and hidden files.
    """
    others = (CARD, TRAINING_IMAGES)
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in others and not path.name.startswith(".")
    ]
    digests = {}
    with progress("hashing the model's files", len(files)) as show:
        for done, path in enumerate(files, start=1):
            digests[str(path.relative_to(folder))] = _digest(path)
            show(done, len(files))
    return digests


def _digest(path: Path) -> str:
    with path.open("rb") as stream:  # in pieces: a file may be larger than the memory
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(folder: Path) -> str:
    """Return one hash of `model_files`, the identity that memory banks and runs record."""
    return hashlib.sha256(json.dumps(model_files(folder)).encode()).hexdigest()


def read_config(folder: Path) -> FolderConfig:
    """Read a model folder's `emosym.json`; raise UserError for another format or unknown keys."""
    check_folder(folder)
    path = folder / CONFIG
    try:  # check the format before the keys: a newer format may have other keys
        version = int(read_object(path)["model"]["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read", got=f"{type(error).__name__} {error}") from error
    if version > FORMAT:
        raise UserError(
            f"the model in {path.parent} was written by a newer version",
            got=f"format {version}",
            expected=f"at most {FORMAT}",
            fix="update emosym",
        )
    if version < FORMAT:
        raise UserError(
            f"the model in {path.parent} was written by an older version",
            got=f"format {version}",
            expected=f"{FORMAT}, with the decoder's scheduler in its folder",
            fix="train the model again, or use the version that wrote it",
        )
    return load_config(FolderConfig, path)


def _merged(model: EmoSym, dtype: torch.dtype | None) -> EmoSym:
    """Return the model with adapters merged and weights cast; only changed parts are copied."""
    merged = copy.copy(model)
    merged._modules = dict(model._modules)
    for name in EmoSym.PARTS:
        part = getattr(model, name)
        if dtype is None and not adapter_names(part):
            continue
        part = copy.deepcopy(part)
        merge_lora(part)
        setattr(merged, name, part if dtype is None else part.to(dtype))
    return merged
