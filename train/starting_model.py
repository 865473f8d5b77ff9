"""Changes of a starting model before training: new tokens and heads, what is frozen, adapters."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Sequence

import torch
from torch import nn

from emosym.models.heads import mlp
from emosym.models.model import EmoSym
from emosym.models.reasoner import Reasoner
from model_zoo import zoo
from model_zoo.adapters import LoraSpec, add_lora, backbone_layers, decoder_layers
from train.config import AdaptersConfig
from train.data.knowledge import KnowledgeEncoder
from train.phases.base import freeze


def refit(
    model: EmoSym, tokens: int | None, knowledge: KnowledgeEncoder | None, seed: int
) -> list[str]:
    """Give a model another number of reasoning tokens, or a head for another knowledge encoder.

    New tokens and a new head have random weights, as in a model from scratch. Everything else is
    kept, [EMO] too. Nothing changes where the model has the wanted number and encoder already.

    Args:
        model: changed in place, its configuration too.
        tokens: K, or None to keep the model's.
        knowledge: the encoder of the run, or None when it uses none.
        seed: of the new weights.

    Returns:
        A line for each change.
    """
    changes = []
    understander, config = model.understander, model.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if tokens not in (None, config.reasoning_tokens):
            emotion = understander.reasoner.emotion
            understander.reasoner = Reasoner(tokens, understander.backbone.width).to(emotion)
            understander.reasoner.emotion = emotion
            changes.append(f"reasoning tokens: {config.reasoning_tokens} -> {tokens}, new ones")
            config = dataclasses.replace(config, reasoning_tokens=tokens)
            model.space = None  # it was fitted to the states of the old tokens
        if knowledge is not None and knowledge.name != config.knowledge_encoder:
            width = knowledge.width or model.generator.denoiser.knowledge_width
            head = mlp(width, understander.backbone.width, understander.backbone.width)
            understander.knowledge_head = head.to(understander.reasoner.emotion)
            changes.append(
                f"knowledge encoder: {config.knowledge_encoder} -> {knowledge.name}, a new head"
            )
            config = dataclasses.replace(
                config, knowledge_encoder=knowledge.name, knowledge_width=knowledge.width
            )
    model.config = config
    return changes


def changed_hash(model_hash: str, changes: list[str], seed: int) -> str:
    """Return the hash of a starting model after `refit`: a bank holds embeddings of one model."""
    if not changes:
        return model_hash
    return hashlib.sha256(repr((model_hash, changes, seed)).encode()).hexdigest()


def freeze_unused(model: EmoSym, named: Collection[str], unfrozen: Sequence[nn.Module]) -> None:
    """Freeze the modules of option `freeze`, and autoencoder and text encoder if none trains them.

    Args:
        model: changed in place.
        named: option `freeze`: `backbone`, `denoiser`.
        unfrozen: modules that phases train, see `Phase.unfreezes`.
    """
    for module in (model.autoencoder, model.generator.denoiser.text_encoder):
        if module not in unfrozen:
            freeze(module)
    if "backbone" in named:
        freeze(model.understander.backbone)
    if "denoiser" in named:
        freeze(model.generator.denoiser)


def adapt(model: EmoSym, config: AdaptersConfig, seed: int) -> None:
    """Put adapters into the parts that train through them. Ref: EmoSym (r 64), Flow-GRPO."""
    understander, generator = config.understander, config.generator
    if understander is not None:
        backbone = zoo.components(model).backbone
        add_lora(
            backbone,
            LoraSpec(
                layers=backbone_layers(backbone, vision=understander.vision),
                rank=understander.rank,
                alpha=understander.alpha,
                dropout=understander.dropout,
                seed=seed,
            ),
        )
    if generator is not None:
        denoiser = zoo.components(model).denoiser
        add_lora(
            denoiser,
            LoraSpec(
                layers=decoder_layers(denoiser),
                rank=generator.rank,
                alpha=generator.alpha,
                dropout=generator.dropout,
                init="gaussian",
                seed=seed,
            ),
        )
