"""Encoded knowledge: the same bits whatever it is batched with, and encoded once."""

from __future__ import annotations

import torch

from emosym.models.model import DECODER
from model_zoo.text.text_encoders import SENTENCE
from tests.model_zoo import make
from train.data.knowledge import KnowledgeEncoder

TEXTS = ["A dark sky.", "A cat is a friend, bright and warm.", "", "A dark sky."]


def test_a_text_is_encoded_once_and_alone():
    model, cpu = make.tiny(), torch.device("cpu")
    knowledge, fresh = (KnowledgeEncoder(SENTENCE, model, cpu) for _ in range(2))
    read: list[list[str]] = []
    knowledge.encoder.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    first = knowledge(TEXTS)
    assert torch.equal(knowledge(TEXTS[::-1]), first.flip(0))
    assert read == [[TEXTS[0]], [TEXTS[1]], [TEXTS[2]]]
    assert knowledge.width == first.shape[1] == 384
    assert torch.equal(fresh(TEXTS[1:2]), first[1:2])  # as after a resume, in another batch
    assert (first - knowledge.encoder(TEXTS)).abs().max() < 1e-5


def test_the_decoder_is_read_anew():
    """Its encoder may train: what it said of a text is not kept."""
    model = make.tiny()
    knowledge = KnowledgeEncoder(DECODER, model, torch.device("cpu"))
    assert knowledge.width is None
    with torch.no_grad():
        assert torch.equal(knowledge(TEXTS), model.generator.denoiser.pool_text(TEXTS))
    assert not knowledge(TEXTS).requires_grad
    calls: list[int] = []
    encoder = model.generator.denoiser.text_encoder.t5
    hook = encoder.register_forward_hook(lambda *_: calls.append(1))
    knowledge(TEXTS)
    knowledge(TEXTS)
    hook.remove()
    assert len(calls) == 2
