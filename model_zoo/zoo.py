"""The zoo: presets of model members, and their weights as self-describing folders.

A model folder holds `emosym.json` (what shapes the model), `heads.safetensors` (reasoner, heads,
conditioner), `backbone/` (Hugging Face layout), `decoder/` (diffusers layout) and, where one was
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

import safetensors.torch
import torch
import yaml

from emosym.config import load_config
from emosym.errors import UserError, unknown
from emosym.files import replace_folder, temporary_for
from emosym.models.emotion_space import EmotionSpace
from emosym.models.model import FORMAT, EmoSym, ModelConfig, check_range
from model_zoo.adapters import adapter_names, merge_lora
from model_zoo.backbones.qwen_vl import load_backbone, new_backbone
from model_zoo.decoders.loading import load_decoder, new_decoder, save_decoder
from model_zoo.pretrained import quiet, reading
from model_zoo.text.tokenizer import train_tokenizer

HERE = Path(__file__).parent
CONFIG = "emosym.json"
HEADS = "heads.safetensors"
SPACE = "emotion_space.safetensors"
CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What `emosym.json` says."""

    model: ModelConfig
    text_tokens: int | None = None
    """Window of the decoder's T5; null is 256, or no T5. CLIP's is its own."""

    def __post_init__(self) -> None:
        if self.text_tokens is not None:
            check_range("text_tokens", self.text_tokens, 1, 4096)


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
                fix=f"train them with `{preset(path.name)['train']}`",
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
        UserError: unknown name, not a model folder, unreadable files, a newer format, weights
            that are missing, unused or of another shape.
    """
    folder = folder_of(name_or_path)
    about = read_about(folder)
    config = about.model
    backbone, processor = load_backbone(folder / "backbone", dtype)
    denoiser, autoencoder = load_decoder(
        folder / "decoder", config.image_size, about.text_tokens, dtype
    )
    model = EmoSym(
        config,
        backbone=backbone,
        processor=processor,
        denoiser=denoiser,
        autoencoder=autoencoder,
    )
    with reading(folder / HEADS):
        heads = safetensors.torch.load_file(folder / HEADS)
    model.load_head_state(heads)
    if (folder / SPACE).is_file():
        with reading(folder / SPACE):
            state = safetensors.torch.load_file(folder / SPACE)
        model.space = EmotionSpace.from_state_dict(
            state, (1 + config.reasoning_tokens, model.understander.backbone.width)
        )
    return model.to(dtype).eval()


def build(name: str, corpus: Iterable[str], seed: int) -> EmoSym:
    """Build a member with random weights and a tokenizer trained on `corpus`."""
    return assemble(preset(name), corpus, seed)


def assemble(spec: dict, corpus: Iterable[str], seed: int) -> EmoSym:
    """Build what a preset describes, as `build` does a member; `spec` is not changed."""
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
    """Write a model folder under a temporary name, then rename; an old model is replaced.

    Adapters are merged into the weights that are written: a model folder never has any.

    Args:
        model: the model; it is not changed.
        folder: where it goes.
        dtype: storage type of the weights; None keeps each as it is.

    Raises:
        UserError: `folder` holds something that is not a model, or cannot be written.
    """
    target = Path(folder)
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty and not (target / CONFIG).is_file():
        raise UserError(
            f"{target} exists and is not a model folder", fix="choose another place for the model"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_for(target)
    try:
        temporary.mkdir()
        parts = _plain(model, dtype)
        with quiet():
            parts.understander.backbone.model.save_pretrained(temporary / "backbone")
            model.processor.save(temporary / "backbone")
            save_decoder(parts.generator.denoiser, parts.autoencoder, temporary / "decoder")
        heads = {k: v.contiguous() for k, v in parts.head_state().items()}
        safetensors.torch.save_file(heads, temporary / HEADS)
        if model.space is not None:
            safetensors.torch.save_file(model.space.state_dict(), temporary / SPACE)
        about = About(model=model.config, text_tokens=model.generator.denoiser.text_tokens)
        (temporary / CONFIG).write_text(json.dumps(dataclasses.asdict(about), indent=2) + "\n")
        replace_folder(temporary, target)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"model folder {target} cannot be written", got=error, fix="free some space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def model_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that decides what a model computes, by relative path.

    That is all but the model card and hidden files: labels and tokens count as weights do.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != CARD and not path.name.startswith(".")
    }


def fingerprint(folder: Path) -> str:
    """Return one hash of a model folder's files: the identity that memory banks and runs record."""
    return hashlib.sha256(json.dumps(model_files(folder)).encode()).hexdigest()


def read_about(folder: Path) -> About:
    """Read a model folder's `emosym.json`; raise UserError for another format or other keys."""
    path = folder / CONFIG
    try:  # the format comes first, because a newer one may have other keys
        saved = json.loads(path.read_text())
        version = int(saved["model"]["format"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
            expected=f"{FORMAT}, whose decoder brings its scheduler",
            fix="train it again, or use the version that wrote it",
        )
    return load_config(About, path)


def _plain(model: EmoSym, dtype: torch.dtype | None) -> EmoSym:
    """Return the model with its adapters merged and its weights cast; copies what it changes."""
    plain = copy.copy(model)
    plain._modules = dict(model._modules)
    for name in EmoSym.PARTS:
        part = getattr(model, name)
        if dtype is None and not adapter_names(part):
            continue
        part = copy.deepcopy(part)
        merge_lora(part)
        setattr(plain, name, part if dtype is None else part.to(dtype))
    return plain
