from __future__ import annotations

import math

import pytest
import torch

from emosym.models.reasoner import Reasoner, effective_rank, mean_cosine, norm_ratio


def test_identical_tokens_have_rank_one():
    row = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    assert effective_rank(row.expand(3, 5, 6)).item() == pytest.approx(1, abs=1e-4)
    scaled = torch.tensor([[1.0], [-2.0], [0.5]]) * row
    assert effective_rank(scaled[None]).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_orthonormal_tokens_have_full_rank(tokens):
    states = torch.eye(6)[None, :tokens]
    assert effective_rank(states).item() == pytest.approx(tokens, abs=1e-4)
    assert effective_rank(7 * states).item() == pytest.approx(tokens, abs=1e-4)


def test_rank_by_hand():
    """Singular values 3 and 1: shares 3/4 and 1/4; and the mean over a batch."""
    states = torch.diag(torch.tensor([3.0, 1.0]))
    rank = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(states[None]).item() == pytest.approx(rank, abs=1e-5)
    both = torch.stack([states, torch.eye(2)])
    assert effective_rank(both).item() == pytest.approx((rank + 2) / 2, abs=1e-5)
    assert effective_rank(torch.zeros(1, 2, 2)).isfinite()


def test_without_reasoning_tokens_there_is_no_rank_and_emo_alone():
    assert effective_rank(torch.zeros(3, 0, 6)).item() == 0
    reasoner = Reasoner(0, 6)
    span = reasoner(3)
    assert span.shape == (3, 1, 6)
    assert torch.equal(span[2], reasoner.emotion)


def test_the_emotion_token_comes_last():
    reasoner = Reasoner(4, 6)
    span = reasoner(3)
    assert span.shape == (3, 5, 6)
    assert torch.equal(span[1, :4], reasoner.context)
    assert torch.equal(span[2, 4:], reasoner.emotion)
    span[0].sum().backward()
    assert torch.equal(reasoner.context.grad, torch.ones(4, 6))
    assert torch.equal(reasoner.emotion.grad, torch.ones(1, 6))


def test_mean_cosine_by_hand():
    """Of x, 2x and y the pairs have cosines 1, 0 and 0; of z and -z it is -1."""
    three = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    assert mean_cosine(three).item() == pytest.approx(1 / 3, abs=1e-6)
    assert mean_cosine(torch.tensor([[1.0, 2.0], [-2.0, -4.0]])).item() == pytest.approx(-1)
    assert mean_cosine(torch.eye(5)).item() == pytest.approx(0, abs=1e-6)
    same = torch.ones(4, 3)
    assert mean_cosine(same).item() == pytest.approx(1)
    both = torch.stack([three, same[:3, :2]])
    assert mean_cosine(both).item() == pytest.approx((1 / 3 + 1) / 2, abs=1e-6)


def test_mean_cosine_against_every_pair():
    states = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    pairs = [
        torch.cosine_similarity(row[i], row[j], dim=0).item()
        for row in states
        for i in range(5)
        for j in range(i)
    ]
    assert mean_cosine(states).item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert math.isnan(mean_cosine(states[:, :1]).item())


def test_norm_ratio_by_hand():
    """Norms 5 and 1 against norms 1 and 3."""
    context = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert norm_ratio(context, torch.tensor([[1.0, 0.0], [0.0, -3.0]])).item() == pytest.approx(1.5)
