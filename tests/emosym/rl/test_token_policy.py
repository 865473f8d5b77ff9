"""Sampling and training share one distribution of tokens, in float32 from logits of any type."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from emosym.models.losses import token_log_probs
from emosym.rl.token_policy import TokenPolicy

TEMPERATURE = 0.7


def bf16_logits(*shape: int) -> Tensor:
    """Return logits of a size that language models give, in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    return (6 * torch.randn(*shape, generator=generator)).bfloat16()


def test_bf16_logits_have_the_probabilities_of_their_float32_copy():
    """The quotient in bfloat16 differs from it by some percent; the ratio must not."""
    logits, ids = bf16_logits(4, 8, 500), torch.arange(32).view(4, 8)
    policy = TokenPolicy(TEMPERATURE, (3, 400))
    exact = policy.logits(logits.double()).log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)
    sampled = token_log_probs(policy.logits(logits), ids)
    trained = policy.log_probs(logits, ids)
    kept = ids != 3
    assert trained.dtype == torch.float32
    assert ((trained - sampled).exp() - 1)[kept].abs().max() < 1e-6
    assert ((trained - exact).exp() - 1)[kept].abs().max() < 1e-5
    divided_first = token_log_probs(logits / TEMPERATURE, ids)
    assert ((divided_first - sampled).exp() - 1)[kept].abs().max() > 0.02


def test_the_gradient_is_that_of_one_pass_over_all_rows():
    logits, ids = bf16_logits(3, 5, 40), torch.arange(15).view(3, 5)
    policy = TokenPolicy(TEMPERATURE, (30,))
    leaf, twin = (logits.float().requires_grad_() for _ in range(2))
    weights = torch.arange(15.0).view(3, 5)
    (policy.log_probs(leaf, ids) * weights).sum().backward()
    (token_log_probs(policy.logits(twin), ids) * weights).sum().backward()
    assert torch.equal(leaf.grad, twin.grad)
    assert leaf.grad[..., 30].eq(0).all()
    half = logits.clone().requires_grad_()
    (policy.log_probs(half, ids) * weights).sum().backward()
    assert torch.equal(half.grad, twin.grad.bfloat16())


def test_no_float32_copy_of_all_logits_is_kept_for_the_backward_pass():
    """What autograd keeps is the logits themselves; a copy of one row is made again at its turn."""
    logits = bf16_logits(8, 16, 1000).requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        TokenPolicy(TEMPERATURE, ()).log_probs(logits, torch.zeros(8, 16, dtype=torch.long))
    assert all(each.dtype != torch.float32 or each.numel() < 1000 for each in kept)


def test_entropy_by_hand():
    """A coin has log 2, a certain token 0; a forbidden token adds nothing."""
    logits = torch.tensor([[[0.0, 0.0, 9.0], [50.0, 0.0, 9.0]], [[1.0, 1.0, 1.0], [0.0, 1.0, 9.0]]])
    found = TokenPolicy(1.0, (2,)).entropy(logits)
    q = 1 / (1 + math.e)
    last = -(q * math.log(q) + (1 - q) * math.log(1 - q))
    assert found.flatten().tolist() == pytest.approx([math.log(2), 0, math.log(2), last], abs=1e-6)
    warm = TokenPolicy(0.5, (2,)).entropy(logits)
    assert warm[1, 1] < found[1, 1]
