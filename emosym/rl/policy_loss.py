"""Policy-gradient losses on groups of sampled answers. Pure functions of tensors."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from emosym.errors import UserError

SAPO_TEMPERATURES = (1.0, 1.05)
"""Temperatures τ of SAPO's gate for positive and for other advantages. Ref: arXiv 2511.20347."""

ImportanceSamplingLevel = Literal["token", "sequence"]
"""Whether each token has its own ratio π_θ / π_old, or all tokens of an answer share one."""


class ClipRange(NamedTuple):
    """Bounds of the ratio."""

    low: float
    high: float


def around_one(epsilon: float = 0.2, epsilon_high: float = 0.28) -> ClipRange:
    """Return [1 - epsilon, 1 + epsilon_high]. Ref: DAPO (arXiv 2503.14476)."""
    return ClipRange(1 - epsilon, 1 + epsilon_high)


def capped(epsilon_high: float = 5.0) -> ClipRange:
    """Return [0, epsilon_high]: no lower bound. Ref: CISPO as in ScaleRL (arXiv 2510.13786)."""
    return ClipRange(0, epsilon_high)


def unbounded() -> ClipRange:
    """Return [0, ∞]."""
    return ClipRange(0, math.inf)


Surrogate = Callable[[Tensor, Tensor, Tensor, ClipRange], Tensor]
"""(ratio, advantage, log-probability), broadcast to [B, L], and bounds -> objective per token."""


def clipped(ratio: Tensor, advantage: Tensor, log_probs: Tensor, clip: ClipRange) -> Tensor:
    """Return min(ρ A, clip(ρ) A). Ref: DeepSeekMath (arXiv 2402.03300), eq. 3."""
    return torch.minimum(ratio * advantage, ratio.clamp(clip.low, clip.high) * advantage)


def weighted(ratio: Tensor, advantage: Tensor, log_probs: Tensor, clip: ClipRange) -> Tensor:
    """Return sg(min(ρ, cap)) A log π: every token keeps its gradient. Ref: MiniMax-M1 (arXiv
    2506.13585)."""
    return ratio.clamp(max=clip.high).detach() * advantage * log_probs


def gated(ratio: Tensor, advantage: Tensor, log_probs: Tensor, clip: ClipRange) -> Tensor:
    """Return 4/τ σ(τ (ρ - 1)) A: a soft clip. Ref: SAPO, as above."""
    positive, other = SAPO_TEMPERATURES
    temperature = torch.where(advantage > 0, positive, other)
    return torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature * advantage


@dataclass(frozen=True, slots=True)
class Normalizer:
    """What a reduction may divide the sum over tokens by."""

    mask: Tensor
    """[B, L], 1 for real tokens."""
    update_tokens: Tensor
    """Real tokens of the optimizer update / its micro-batches on all ranks."""
    rollout_tokens: Tensor
    """Real tokens of the rollout / the micro-batches of one pass over it, on all ranks."""
    max_completion_length: int
    """Longest answer allowed, tokens."""


Reduction = Callable[[Tensor, Normalizer], Tensor]
"""Values [B, L], zero where masked -> scalar."""


def per_answer(values: Tensor, by: Normalizer) -> Tensor:
    """Mean over the tokens of each answer, then over answers."""
    return (values.sum(1) / by.mask.sum(1).clamp_min(1)).mean()


def per_update_token(values: Tensor, by: Normalizer) -> Tensor:
    """Mean over the tokens of an update (the engines average over its micro-batches)."""
    return values.sum() / by.update_tokens.clamp_min(1)


def per_rollout_token(values: Tensor, by: Normalizer) -> Tensor:
    """Mean over the tokens of a rollout, so that a token weighs the same in every update."""
    return values.sum() / by.rollout_tokens.clamp_min(1)


def per_max_length(values: Tensor, by: Normalizer) -> Tensor:
    """Sum over the tokens of each answer / longest length, then mean over answers."""
    return values.sum() / (len(values) * by.max_completion_length)


@dataclass(frozen=True, slots=True)
class LossType:
    """A surrogate objective and its reduction."""

    surrogate: Surrogate
    reduction: Reduction
    bounds: Callable[..., ClipRange] = around_one
    """Bounds of the ratio; its parameters are the options of clipping that the loss reads."""


LOSSES = {
    "grpo": LossType(clipped, per_answer),
    "dr_grpo": LossType(clipped, per_max_length),
    "bnpo": LossType(clipped, per_update_token),
    "dapo": LossType(clipped, per_rollout_token),
    "cispo": LossType(weighted, per_rollout_token, capped),
    "sapo": LossType(gated, per_answer, unbounded),
}
"""`loss_type` -> loss, with TRL's names. Ref: DeepSeekMath (arXiv 2402.03300); Dr. GRPO (arXiv
2503.20783); BNPO (arXiv 2506.02864); DAPO (arXiv 2503.14476); CISPO (arXiv 2506.13585); SAPO (arXiv
2511.20347). GSPO (arXiv 2507.18071) is `grpo` with `importance_sampling_level="sequence"`. TRL's
`bnpo` takes the tokens of one micro-batch of one rank, so that its objective depends on their
number; ours takes those of the update."""


def clip_range(loss_type: str, **options: float | None) -> ClipRange:
    """Return the bounds of a loss's ratio from `epsilon` and `epsilon_high`; None is the default.

    Raises:
        UserError: an option that the loss does not read.
    """
    bounds = LOSSES[loss_type].bounds
    given = {name: value for name, value in options.items() if value is not None}
    read = inspect.signature(bounds).parameters
    for name in given:
        if name not in read:
            raise UserError(
                f"loss_type={loss_type} does not read {name}",
                got=given[name],
                expected=f"null; it reads {' and '.join(read) or 'no option of clipping'}",
            )
    return bounds(**given)


@dataclass(frozen=True, slots=True)
class PolicyLossOutput:
    """Loss and statistics of a step; all but the loss are detached."""

    loss: Tensor
    kl: Tensor
    """Mean k3 over tokens of each answer, then over answers."""
    clipped_low: Tensor
    """Share of ratios below the lower bound with a negative advantage: no gradient there."""
    clipped_high: Tensor
    """Share of ratios above the upper bound with a positive advantage."""
    ratio_deviation: Tensor
    """max |π_θ / π_old - 1| over real tokens; 0 on the first update after a rollout."""


def policy_loss(
    loss_type: str,
    log_probs: Tensor,
    old_log_probs: Tensor,
    ref_log_probs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    beta: float,
    max_completion_length: int,
    epsilon: float | None = None,
    epsilon_high: float | None = None,
    importance_sampling_level: ImportanceSamplingLevel = "token",
    update_tokens: Tensor | None = None,
    rollout_tokens: Tensor | None = None,
) -> PolicyLossOutput:
    """Return the loss of B sampled answers: -surrogate + β k3, reduced.

    k3 = exp(d) - d - 1 with d = log π_ref - log π clamped to ±20. At the level `sequence` the ratio
    of an answer is the geometric mean over its tokens.

    Args:
        loss_type: key of `LOSSES`.
        log_probs: [B, L] with gradient.
        old_log_probs: [B, L] of the policy that sampled.
        ref_log_probs: [B, L] of the frozen reference; None where beta is 0.
        advantages: [B].
        mask: [B, L], 1 for real tokens; an answer whose row is 0 contributes nothing.
        beta: weight of the KL.
        max_completion_length: longest answer allowed, tokens.
        epsilon: the ratio is clipped below at 1 - epsilon; None is the loss's default, 0.2.
        epsilon_high: the ratio is clipped above at 1 + epsilon_high, for `cispo` at epsilon_high;
            None is the loss's default, 0.28 or for `cispo` 5.
        importance_sampling_level: `token` or `sequence`.
        update_tokens: denominator of `bnpo`: real tokens of the optimizer update / the number of
            its micro-batches on all ranks. None where these answers are the update.
        rollout_tokens: denominator of `dapo` and `cispo` (TRL's `num_items_in_batch`, rescaled):
            real tokens of the rollout / the number of micro-batches of one pass over it. None where
            these answers are the rollout.

    Raises:
        UserError: an option that the loss does not read.
    """
    kind = LOSSES[loss_type]
    clip = clip_range(loss_type, epsilon=epsilon, epsilon_high=epsilon_high)
    mask = mask.to(log_probs.dtype)
    log_ratio = (log_probs - old_log_probs) * mask
    lengths = mask.sum(1, keepdim=True).clamp_min(1)
    if importance_sampling_level == "sequence":
        ratio = (log_ratio.sum(1, keepdim=True) / lengths).exp()
    else:
        ratio = log_ratio.exp()
    advantage = advantages[:, None]
    values = -kind.surrogate(ratio, advantage, log_probs, clip) * mask
    kl = torch.zeros(())
    if ref_log_probs is not None:
        difference = (ref_log_probs - log_probs).clamp(-20, 20)
        k3 = (difference.exp() - difference - 1) * mask
        values = values + beta * k3
        kl = (k3.sum(1) / lengths.squeeze(1)).mean()
    normalizer = Normalizer(
        mask,
        mask.sum() if update_tokens is None else update_tokens,
        mask.sum() if rollout_tokens is None else rollout_tokens,
        max_completion_length,
    )
    ratios, real = ratio.detach().expand_as(mask), mask.sum().clamp_min(1)
    return PolicyLossOutput(
        loss=kind.reduction(values, normalizer),
        kl=kl.detach(),
        clipped_low=((ratios < clip.low) * (advantage < 0) * mask).sum() / real,
        clipped_high=((ratios > clip.high) * (advantage > 0) * mask).sum() / real,
        ratio_deviation=((log_ratio.detach().exp() - 1).abs() * mask).max(),
    )
