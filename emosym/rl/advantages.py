"""Advantages of groups of samples from their rewards. Pure functions of tensors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ScaleRewards = Literal["group", "batch", "none"]
"""Scope of the standard deviation that divides rewards. As TRL's option `scale_rewards`."""
MultiObjectiveAggregation = Literal["sum_then_normalize", "normalize_then_sum"]
"""Order in which several rewards are summed and normalised. As TRL's option of that name."""


def group_advantages(
    rewards: Tensor, scale_rewards: ScaleRewards = "group", eps: float = 1e-4
) -> Tensor:
    """Return (r - mean_G) / (std + eps) for rewards [B, G].

    The standard deviation is that of the group (GRPO, as in EEmo-Logic), of the whole batch, or is
    left out (Dr. GRPO, arXiv 2503.20783). Where all rewards of a group are equal, advantages are 0.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    if scale_rewards == "none":
        return centred
    std = rewards.std() if scale_rewards == "batch" else rewards.std(1, keepdim=True)
    return centred / (std + eps)


def joint_advantages(
    rewards: Tensor,
    reward_weights: Tensor,
    *,
    scale_rewards: ScaleRewards = "group",
    multi_objective_aggregation: MultiObjectiveAggregation = "sum_then_normalize",
) -> Tensor:
    """Return advantages [B, G] of R weighted rewards [R, B, G].

    With `normalize_then_sum` each reward is normalised alone, then they are summed and normalised
    over the batch, so that a reward with a small spread still counts.
    Ref: GDPO (arXiv 2601.05242).
    """
    if multi_objective_aggregation == "sum_then_normalize":
        total = torch.einsum("rbg,r->bg", rewards, reward_weights)
        return group_advantages(total, scale_rewards)
    each = torch.stack([group_advantages(reward, scale_rewards) for reward in rewards])
    total = torch.einsum("rbg,r->bg", each, reward_weights)
    return (total - total.mean()) / (total.std() + 1e-4)
