"""The zoo: presets of model members, and their weights as self-describing folders.

A model folder holds `emosym.json` (what shapes the model), `heads.safetensors` (reasoner, heads,
conditioner), `backbone/` (Hugging Face layout) and `decoder/` (diffusers layout).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch
import torch
import yaml
from safetensors import SafetensorError
from torch import nn

from emosym.errors import UserError, unknown
from emosym.model import EmoSym, ModelConfig
from model_zoo.backbones import load_backbone, new_backbone
from model_zoo.decoders import load_decoder, new_decoder, save_decoder
from model_zoo.tokenizer import train_tokenizer

HERE = Path(__file__).parent
CONFIG = "emosym.json"
HEADS = "heads.safetensors"
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError)
"""What the libraries raise on model files that are missing, damaged or do not fit together."""


def members() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in (HERE / "presets").glob("*.yaml"))


def preset(name: str) -> dict:
    """Return a member's architecture as plain data; raise UserError for an unknown name."""
    if name not in members():
        raise unknown("model", name, members())
    return yaml.safe_load((HERE / "presets" / f"{name}.yaml").read_text())


def folder_of(name_or_path: str | Path) -> Path:
    """Return the folder of a member's shipped weights, or of a path given instead."""
    path = Path(name_or_path)
    if str(name_or_path) in members():
        path = HERE / "weights" / str(name_or_path)
        if not (path / CONFIG).is_file():
            raise UserError(
                f"the weights of {name_or_path} are not in this installation",
                got=f"no {path}",
                fix="train them with `make tiny-base`",
            )
    elif not path.exists() and path.parent == Path():
        raise unknown("model", name_or_path, members())
    if not (path / CONFIG).is_file():
        raise UserError(
            f"{path} is not a model folder",
            expected=f"a folder with {CONFIG}, or one of {', '.join(members())}",
            fix="a run's model is in its folder `model`",
        )
    return path


def load(name_or_path: str | Path, dtype: torch.dtype = torch.float32) -> EmoSym:
    """Load a member by name, or a model folder, in evaluation mode.

    Raises:
        UserError: unknown name, not a model folder, weights missing, damaged or of another shape.
    """
    folder = folder_of(name_or_path)
    try:
        return _load(folder, dtype)
    except _DAMAGE as error:
        raise UserError(
            f"cannot load the model {folder}",
            got=f"{type(error).__name__}: {error}",
            fix="a file of it is missing, damaged or from another model: restore the folder",
        ) from error


def _load(folder: Path, dtype: torch.dtype) -> EmoSym:
    saved = json.loads((folder / CONFIG).read_text())
    config = ModelConfig(**saved["model"])
    backbone, processor = load_backbone(folder / "backbone", dtype)
    denoiser, autoencoder = load_decoder(
        folder / "decoder", config.image_size, saved["text_tokens"], dtype
    )
    model = EmoSym(
        config,
        backbone=backbone,
        processor=processor,
        denoiser=denoiser,
        autoencoder=autoencoder,
    )
    model.load_head_state(safetensors.torch.load_file(folder / HEADS))
    return model.to(dtype).eval()


def build(name: str, corpus: Iterable[str], seed: int) -> EmoSym:
    """Build a member with random weights and a tokenizer trained on `corpus`."""
    spec = preset(name)
    tokenizer = train_tokenizer(corpus, spec["vocabulary"])
    ids = {
        "image_token_id": "<|image_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    backbone_config = {**spec["backbone"]}
    backbone_config |= {k: tokenizer.convert_tokens_to_ids(token) for k, token in ids.items()}
    backbone_config["text_config"] |= {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = ModelConfig(**spec["model"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone, processor = new_backbone(backbone_config, tokenizer, spec["image_processor"])
        denoiser, autoencoder = new_decoder(
            spec["transformer"],
            {
                **spec["text_encoder"],
                "vocab_size": len(tokenizer),
                "pad_token_id": tokenizer.pad_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            },
            spec["vae"],
            tokenizer,
            config.image_size,
            spec["text_tokens"],
        )
        model = EmoSym(
            config,
            backbone=backbone,
            processor=processor,
            denoiser=denoiser,
            autoencoder=autoencoder,
        )
    return model.eval()


def save(model: EmoSym, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
    """Write a model folder under a temporary name, then rename; an old folder is replaced.

    Args:
        model: the model; it is not changed.
        folder: where it goes.
        dtype: storage type of the weights; None keeps each as it is.
    """
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        parts = _cast(model, dtype)
        parts.understander.backbone.model.save_pretrained(temporary / "backbone")
        model.processor.save(temporary / "backbone")
        save_decoder(parts.generator.denoiser, parts.autoencoder, temporary / "decoder")
        heads = {k: v.contiguous() for k, v in parts.head_state().items()}
        safetensors.torch.save_file(heads, temporary / HEADS)
        about = {
            "model": dataclasses.asdict(model.config),
            "text_tokens": model.generator.denoiser.text_tokens,
        }
        (temporary / CONFIG).write_text(json.dumps(about, indent=2) + "\n")
        temporary.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def weight_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every weight file of a model folder, by relative path."""
    files = sorted(folder.rglob("*.safetensors"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def fingerprint(folder: Path) -> str:
    """Return one hash of all weights of a model folder: the identity the memory bank records."""
    return hashlib.sha256(json.dumps(weight_files(folder)).encode()).hexdigest()


def _cast(model: EmoSym, dtype: torch.dtype | None) -> nn.Module:
    if dtype is None:
        return model
    clone = EmoSym.__new__(EmoSym)
    nn.Module.__init__(clone)
    for part in EmoSym.PARTS:
        setattr(clone, part, copy.deepcopy(getattr(model, part)).to(dtype))
    return clone
