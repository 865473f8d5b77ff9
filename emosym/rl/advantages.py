"""Advantages of groups of samples from their rewards. Pure functions of tensors.

A reward of NaN is a sample without a score: statistics leave it out, and its advantage is 0, as for
a reward of None in TRL.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ScaleRewards = Literal["group", "batch", "none"]
"""Scope of the standard deviation that divides rewards. As TRL's option `scale_rewards`."""
MultiObjectiveAggregation = Literal["sum_then_normalize", "normalize_then_sum"]
"""Order in which several rewards are summed and normalised. As TRL's option of that name."""
ROUNDING = 8.0
"""Deviations from the mean of a group that are rounding: up to this many units of the last place of
its rewards. Normalising them would make rewards of noise."""


def group_advantages(
    rewards: Tensor, scale_rewards: ScaleRewards = "group", eps: float = 1e-4
) -> Tensor:
    """Return (r - mean_G) / (std + eps) for rewards [B, G].

    The standard deviation is that of the group (GRPO, as in EEmo-Logic), of the whole batch, or is
    left out (Dr. GRPO, arXiv 2503.20783). Where all rewards of a group are equal but for rounding,
    advantages are exactly 0.
    """
    return _normalized(rewards, rewards.abs(), scale_rewards, eps).nan_to_num()


def joint_advantages(
    rewards: Tensor,
    reward_weights: Tensor,
    *,
    scale_rewards: ScaleRewards = "group",
    multi_objective_aggregation: MultiObjectiveAggregation = "sum_then_normalize",
    eps: float = 1e-4,
) -> Tensor:
    """Return advantages [B, G] of R weighted rewards [R, B, G].

    With `normalize_then_sum` each reward is normalised alone, then they are summed and normalised
    over the batch, so that a reward with a small spread still counts. A sample that lacks one of
    the rewards has no score. Ref: GDPO (arXiv 2601.05242).
    """
    rewards = rewards.masked_fill(rewards.isnan().any(0), torch.nan)
    if multi_objective_aggregation == "sum_then_normalize":
        total, terms = _weighted(rewards, reward_weights)
        return _normalized(total, terms, scale_rewards, eps).nan_to_num()
    each = [_normalized(reward, reward.abs(), scale_rewards, eps) for reward in rewards]
    total, terms = _weighted(torch.stack(each), reward_weights)
    scaled = (total - total.nanmean()) / (_std(total, (0, 1)) + eps)
    return scaled.masked_fill(_is_rounding(total, terms), 0).nan_to_num()


def constant_groups(rewards: Tensor) -> Tensor:
    """Return [B]: whether the rewards of a group [B, G] are equal but for rounding."""
    return _is_rounding(rewards - rewards.nanmean(1, keepdim=True), rewards.abs()).squeeze(1)


def _normalized(rewards: Tensor, terms: Tensor, scale_rewards: ScaleRewards, eps: float) -> Tensor:
    """Return advantages; NaN where the reward is. `terms` [B, G]: sizes of the summands."""
    centred = rewards - rewards.nanmean(1, keepdim=True)
    equal = _is_rounding(centred, terms)
    if scale_rewards == "batch":
        centred = centred / (_std(rewards, (0, 1)) + eps)
    elif scale_rewards == "group":
        centred = centred / (_std(rewards, (1,)) + eps)
    return torch.where(equal & ~rewards.isnan(), 0, centred)


def _weighted(rewards: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted sum [B, G] of rewards [R, B, G], and that of their absolute values."""
    pattern = "rbg,r->bg"
    return (
        torch.einsum(pattern, rewards, weights),
        torch.einsum(pattern, rewards.abs(), weights.abs()),
    )


def _is_rounding(centred: Tensor, terms: Tensor) -> Tensor:
    """Return [B, 1]: whether deviations [B, G] from the mean of a group are rounding alone."""
    numbers = torch.finfo(centred.dtype)
    return _largest(centred.abs()) <= ROUNDING * numbers.eps * _largest(terms) + numbers.tiny


def _largest(values: Tensor) -> Tensor:
    return values.nan_to_num().amax(1, keepdim=True)


def _std(values: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Return `values.std(dim, keepdim=True)` without NaN; it is NaN for fewer than two values."""
    exact = values.double()
    squares = (exact - exact.nanmean(dim, keepdim=True)).square()
    count = (~values.isnan()).sum(dim, keepdim=True)
    return (squares.nansum(dim, keepdim=True) / (count - 1)).sqrt().to(values.dtype)
