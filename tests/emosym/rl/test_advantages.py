from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from emosym.rl.advantages import group_advantages, joint_advantages


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_group_advantages_by_hand():
    """Rewards 1 2 3 4: mean 2.5, deviation (n - 1) of sqrt(5/3)."""
    spread = math.sqrt(5 / 3) + 1e-4
    rewards = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.5, 0.5, 0.5, 0.5]])
    found = group_advantages(rewards)
    assert found[0].tolist() == pytest.approx([x / spread for x in (-1.5, -0.5, 0.5, 1.5)])
    assert found[1].tolist() == [0, 0, 0, 0]
    # Dr. GRPO divides by nothing; a deviation of the batch is that of all eight rewards.
    assert group_advantages(rewards, "none")[0].tolist() == [-1.5, -0.5, 0.5, 1.5]
    values = [1, 2, 3, 4, 0.5, 0.5, 0.5, 0.5]
    whole = math.sqrt(sum((value - 1.5) ** 2 for value in values) / 7) + 1e-4
    assert group_advantages(rewards, "batch")[0, 3].item() == pytest.approx(1.5 / whole)


def test_advantages_are_of_a_group_only():
    rewards = normal(3, 5)
    moved = group_advantages(rewards * torch.tensor([[1.0], [7.0], [1.0]]) + 4)
    assert torch.allclose(moved, group_advantages(rewards), atol=1e-3)
    assert group_advantages(rewards).mean(1).abs().max() < 1e-6


def test_apart_a_small_reward_counts_as_much_as_a_large_one():
    """Two rewards that disagree, one with a hundredth of the spread of the other."""
    large = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    small = torch.tensor([[0.0, 0.01, 0.01, 0.0]])
    rewards, weights = torch.stack([large, small]), torch.ones(2)
    summed = joint_advantages(rewards, weights)[0]
    apart = joint_advantages(rewards, weights, multi_objective_aggregation="normalize_then_sum")[0]
    assert summed[0] > 0 > summed[1]
    assert apart[:2].tolist() == pytest.approx([0, 0], abs=0.02)
    # 2, -2, 0, 0 over a deviation of sqrt(8/3).
    assert apart[2].item() == pytest.approx(math.sqrt(3 / 2), abs=0.02)
    assert torch.equal(joint_advantages(rewards[:1], 3 * weights[:1]), group_advantages(3 * large))
