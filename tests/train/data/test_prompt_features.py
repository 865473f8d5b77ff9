from __future__ import annotations

import copy

import torch

from tests.model_zoo import make
from train.data import prompt_features
from train.data.prompt_features import PromptFeatureCache

PROMPTS = ["a red house", "", "a cat in the snow", "a red house"]


def counting(denoiser):
    """Return the denoiser, and a list of what it encodes from now on."""
    said: list[list[str]] = []
    encode = denoiser.encode_text

    def encoded(prompts):
        said.append(list(prompts))
        return encode(prompts)

    denoiser.encode_text = encoded
    return denoiser, said


def test_a_frozen_encoder_reads_each_prompt_once():
    denoiser, said = counting(copy.deepcopy(make.tiny().generator.denoiser))
    texts = PromptFeatureCache(denoiser, frozen=True)
    found = texts(PROMPTS)
    expected = make.tiny().generator.denoiser.encode_text(PROMPTS)
    assert torch.allclose(found.tokens, expected.tokens, atol=1e-5)
    assert torch.allclose(found.pooled, expected.pooled, atol=1e-5)
    assert not found.tokens.requires_grad
    texts(PROMPTS[::-1])
    assert sorted(said) == [[""], ["a cat in the snow"], ["a red house"]]


def test_a_batch_does_not_change_the_bits_of_a_prompt():
    denoiser = make.tiny().generator.denoiser
    alone = PromptFeatureCache(denoiser, frozen=True)(["a red house"])
    among = PromptFeatureCache(denoiser, frozen=True)(PROMPTS)
    assert torch.equal(among.tokens[0], alone.tokens[0])
    assert torch.equal(among.tokens[3], alone.tokens[0])


def test_an_encoder_that_trains_reads_anew_with_gradient():
    denoiser, said = counting(copy.deepcopy(make.tiny().generator.denoiser))
    texts = PromptFeatureCache(denoiser, frozen=False)
    assert texts(PROMPTS).tokens.requires_grad
    texts(PROMPTS)
    assert said == [PROMPTS, PROMPTS]


def test_the_oldest_prompt_leaves_first(monkeypatch):
    monkeypatch.setattr(prompt_features, "CACHE_SIZE", 2)
    denoiser, said = counting(copy.deepcopy(make.tiny().generator.denoiser))
    texts = PromptFeatureCache(denoiser, frozen=True)
    for prompt in ("a", "b", "a", "c", "a", "b"):
        texts([prompt])
    assert said == [["a"], ["b"], ["c"], ["b"]]
