"""What a run changes in its starting model before anything trains."""

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

    Both start anew, as in a model from scratch; all else stays, [EMO] too. What the model has
    already is not touched.

    Args:
        model: changed in place, its configuration too.
        tokens: K, or None for the model's own.
        knowledge: the encoder of the run, or None when it uses none.
        seed: of the new weights.

    Returns:
        A line for each change.
    """
    changes = []
    reader, config = model.understander, model.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if tokens not in (None, config.reasoning_tokens):
            emotion = reader.reasoner.emotion
            reader.reasoner = Reasoner(tokens, reader.backbone.width).to(emotion)
            reader.reasoner.emotion = emotion
            changes.append(f"reasoning tokens: {config.reasoning_tokens} -> {tokens}, new ones")
            config = dataclasses.replace(config, reasoning_tokens=tokens)
            model.space = None  # it is of the states of the old ones
        if knowledge is not None and knowledge.name != config.knowledge_encoder:
            width = knowledge.width or model.generator.denoiser.knowledge_width
            head = mlp(width, reader.backbone.width, reader.backbone.width)
            reader.knowledge_head = head.to(reader.reasoner.emotion)
            changes.append(
                f"knowledge encoder: {config.knowledge_encoder} -> {knowledge.name}, a new head"
            )
            config = dataclasses.replace(
                config, knowledge_encoder=knowledge.name, knowledge_width=knowledge.width
            )
    model.config = config
    return changes


def identity(model_hash: str, changes: list[str], seed: int) -> str:
    """Return the identity of a starting model that was changed: other tokens embed otherwise."""
    if not changes:
        return model_hash
    return hashlib.sha256(repr((model_hash, changes, seed)).encode()).hexdigest()
