from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from emosym.rl.advantages import (
    MultiObjectiveAggregation,
    ScaleRewards,
    constant_groups,
    group_advantages,
    joint_advantages,
)

NORMALISATIONS = [
    (scale, order)
    for scale in get_args(ScaleRewards)
    for order in get_args(MultiObjectiveAggregation)
]
UNSCORED = math.nan


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


def ulps(value: float, dtype: torch.dtype, count: int = 8) -> Tensor:
    """Return values that are equal but for one unit of the last place here and there."""
    rewards = torch.full((count,), value, dtype=dtype)
    for place, way in ((0, math.inf), (3, -math.inf)):
        rewards[place] = torch.nextafter(rewards[place], torch.tensor(way, dtype=dtype))
    return rewards


@pytest.mark.parametrize(("scale", "order"), NORMALISATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -0.7, 1e6, 1e-6, 123.456])
@pytest.mark.parametrize("eps", [1e-4, 1e-12, 0.0])
def test_groups_that_differ_by_rounding_have_no_advantage(scale, order, dtype, value, eps):
    """Alone, and in a batch with groups that do differ; one reward and several."""
    equal = ulps(value, dtype)
    found = group_advantages(equal.repeat(3, 1), scale, eps)
    assert torch.equal(found, torch.zeros_like(found))
    apart = torch.linspace(0, 1, 8, dtype=dtype)
    options = {"scale_rewards": scale, "multi_objective_aggregation": order, "eps": eps}
    for number in (1, 2):
        rewards = torch.stack([equal, equal.flip(0), apart]).repeat(number, 1, 1)
        weights = torch.tensor([0.7, 0.3], dtype=dtype)[:number]
        found = joint_advantages(rewards, weights, **options)
        assert torch.equal(found[:2], torch.zeros_like(found[:2]))
        assert found[2].diff().min() > 0
        alone = joint_advantages(rewards[:, :2], weights, **options)
        assert torch.equal(alone, torch.zeros_like(alone))


def test_constant_groups_are_those_that_differ_by_rounding_only():
    """Whatever their size; a sample without a score is left out."""
    equal = torch.stack([ulps(value, torch.float32) for value in (0.0, 0.1, 1e6, 1e-6)])
    apart = torch.linspace(0, 1e-4, 8) + 1
    unscored = equal.clone()
    unscored[:, 1] = UNSCORED
    groups = torch.cat([equal, apart[None], unscored])
    assert constant_groups(groups).tolist() == [True] * 4 + [False] + [True] * 4


@pytest.mark.parametrize(("scale", "order"), NORMALISATIONS)
def test_rewards_that_cancel_have_no_advantage(scale, order):
    """r and 1 - r are 1 together but for rounding, whatever each of them is."""
    reward = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    found = joint_advantages(
        torch.stack([reward, 1 - reward]),
        torch.ones(2),
        scale_rewards=scale,
        multi_objective_aggregation=order,
        eps=1e-12,
    )
    assert found.abs().max() < (1e-6 if order == "normalize_then_sum" else 1e-30)


@pytest.mark.parametrize(("value", "spread"), [(1.0, 1e-4), (1e6, 10.0), (1e-6, 1e-10)])
def test_a_small_spread_is_no_rounding(value, spread):
    """Deviations of -1/2 and 1/2 over sqrt(1/3)."""
    rewards = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).double() * spread + value
    found = group_advantages(rewards, "group", eps=0.0)
    assert found[0].tolist() == pytest.approx([-(0.75**0.5)] * 2 + [0.75**0.5] * 2, rel=1e-3)


@given(
    value=st.floats(-1e6, 1e6, width=32),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9)),
    weights=st.lists(st.floats(1 / 64, 8, width=32), min_size=1, max_size=3),
    how=st.sampled_from(NORMALISATIONS),
    eps=st.sampled_from([0.0, 1e-8, 1e-4]),
)
def test_equal_rewards_have_no_advantage(value, shape, weights, how, eps):
    found = joint_advantages(
        torch.full((len(weights), *shape), value),
        torch.tensor(weights),
        scale_rewards=how[0],
        multi_objective_aggregation=how[1],
        eps=eps,
    )
    assert torch.equal(found, torch.zeros(shape))


@given(
    rewards=st.lists(st.integers(-8, 8), min_size=6, max_size=6),
    shift=st.integers(-1000, 1000),
    how=st.sampled_from(NORMALISATIONS),
)
def test_a_shift_of_all_rewards_changes_nothing(rewards, shift, how):
    """Eighths are exact in floating point."""
    options = {"scale_rewards": how[0], "multi_objective_aggregation": how[1]}
    whole = torch.tensor(rewards, dtype=torch.float64).view(1, 2, 3) / 8
    weights = torch.ones(1, dtype=torch.float64)
    moved = joint_advantages(whole + shift, weights, **options)
    assert torch.allclose(moved, joint_advantages(whole, weights, **options), atol=1e-8)


@pytest.mark.parametrize(("scale", "order"), NORMALISATIONS)
def test_a_sample_without_a_score_is_left_out(scale, order):
    """The others have the advantages of a group without it; its own is 0."""
    options = {"scale_rewards": scale, "multi_objective_aggregation": order}
    whole, weights = torch.rand(2, 2, 5, generator=torch.Generator().manual_seed(1)), torch.ones(2)
    rewards = whole.clone()
    rewards[0, 0, 2] = rewards[1, 1, 4] = UNSCORED  # by one of the two judges
    found = joint_advantages(rewards, weights, **options)
    assert found[0, 2] == found[1, 4] == 0
    kept = torch.stack([whole[:, 0, [0, 1, 3, 4]], whole[:, 1, :4]], 1)
    expected = joint_advantages(kept, weights, **options)
    assert torch.allclose(found[0, [0, 1, 3, 4]], expected[0], atol=1e-6)
    assert torch.allclose(found[1, :4], expected[1], atol=1e-6)


def test_without_a_score_by_hand():
    """1, 2 and 3 have mean 2 and deviation 1; a lone score has nothing to be compared with."""
    rewards = torch.tensor([[1.0, UNSCORED, 2.0, 3.0], [UNSCORED, 5.0, UNSCORED, UNSCORED]])
    found = group_advantages(rewards, "group", eps=0.0)
    assert found.tolist() == [[-1, 0, 0, 1], [0, 0, 0, 0]]
    silent = group_advantages(torch.full((2, 3), UNSCORED))
    assert silent.tolist() == [[0, 0, 0]] * 2
