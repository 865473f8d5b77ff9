"""Texts for the decoder and texts of knowledge go through one encoder, with different windows."""

from __future__ import annotations

import pytest
import torch

from emosym.errors import UserError
from emosym.models.model import EmoSym
from model_zoo import zoo


@pytest.fixture(scope="module")
def model() -> EmoSym:
    return zoo.load("emosym-tiny")


def test_a_long_knowledge_text_is_read_whole(model) -> None:
    denoiser = model.generator.denoiser
    short, long = "a dark cat", "a dark cat " * 20
    with torch.no_grad():
        alone = denoiser.pool_text([short])
        both = denoiser.pool_text([short, long])
        window = denoiser.encode_text([short]).pooled
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(window, alone, atol=1e-5, rtol=1e-5)
    assert (both[1] - both[0]).abs().max() > 1e-3


def test_a_long_prompt_is_refused_not_cut(model) -> None:
    with pytest.raises(UserError, match=r"too long .* expected at most 24"):
        model.generator.denoiser.encode_text(["a dark cat " * 20])
