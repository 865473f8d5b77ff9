"""Changes of a starting model before training: reasoning tokens, knowledge head."""

from __future__ import annotations

import dataclasses
import hashlib

import torch

from emosym.models.heads import mlp
from emosym.models.model import EmoSym
from emosym.models.reasoner import Reasoner
from train.data.knowledge import KnowledgeEncoder


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
