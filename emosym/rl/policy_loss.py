"""Policy-gradient losses on groups of sampled answers. Pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

CISPO_CAP = 5.0
"""Largest importance weight of CISPO. Ref: MiniMax-M1 (arXiv 2506.13585)."""
SAPO_TEMPERATURES = (1.0, 1.05)
"""Of SAPO's gate where the advantage is positive, and elsewhere. Ref: arXiv 2511.20347."""

Spread = Literal["group", "batch", "none"]


def group_advantages(rewards: Tensor, spread: Spread = "group", eps: float = 1e-4) -> Tensor:
    """Return (r - mean_G) / (std + eps) for rewards [B, G].

    The deviation is that of the group (GRPO, as EEmo-Logic), of the whole batch, or left out
    (Dr. GRPO, arXiv 2503.20783). Where all rewards of a group are equal, advantages are 0.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    if spread == "none":
        return centred
    deviation = rewards.std() if spread == "batch" else rewards.std(1, keepdim=True)
    return centred / (deviation + eps)


def joint_advantages(
    rewards: Tensor, weights: Tensor, *, spread: Spread = "group", apart: bool = False
) -> Tensor:
    """Return advantages [B, G] of weighted rewards [R, B, G].

    Rewards are summed and then normalised, or, `apart`, normalised one by one, summed and
    normalised over the batch, so that a reward whose spread is small still counts.
    Ref: GDPO (arXiv 2601.05242).
    """
    if not apart:
        return group_advantages(torch.einsum("rbg,r->bg", rewards, weights), spread)
    each = torch.stack([group_advantages(reward, spread) for reward in rewards])
    total = torch.einsum("rbg,r->bg", each, weights)
    return (total - total.mean()) / (total.std() + 1e-4)


@dataclass(frozen=True, slots=True)
class Clip:
    """How far the ratio may go: [1 - low, 1 + high]. Ref: DAPO (arXiv 2503.14476), clip-higher."""

    low: float = 0.2
    high: float = 0.28


Surrogate = Callable[[Tensor, Tensor, Tensor, Clip], Tensor]
"""Ratio, advantage and log-probability, broadcast to [B, L] -> what each token gains."""


def clipped(ratio: Tensor, gain: Tensor, log_probs: Tensor, clip: Clip) -> Tensor:
    """Return min(ρ A, clip(ρ) A). Ref: DeepSeekMath (arXiv 2402.03300) eq. 3."""
    return torch.minimum(ratio * gain, ratio.clamp(1 - clip.low, 1 + clip.high) * gain)


def weighted(ratio: Tensor, gain: Tensor, log_probs: Tensor, clip: Clip) -> Tensor:
    """Return sg(min(ρ, cap)) A log π: every token keeps its gradient. Ref: CISPO, as above."""
    return ratio.clamp(max=CISPO_CAP).detach() * gain * log_probs


def gated(ratio: Tensor, gain: Tensor, log_probs: Tensor, clip: Clip) -> Tensor:
    """Return 4/τ σ(τ (ρ - 1)) A: a soft clip. Ref: SAPO, as above."""
    rise, fall = SAPO_TEMPERATURES
    temperature = torch.where(gain > 0, rise, fall)
    return torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature * gain


@dataclass(frozen=True, slots=True)
class Scope:
    """What a sum over tokens is divided by."""

    mask: Tensor
    """[B, L], 1 for real tokens."""
    tokens: Tensor
    """Real tokens of all ranks / number of ranks."""
    budget: int
    """Longest answer allowed."""


Reduction = Callable[[Tensor, Scope], Tensor]
"""Values [B, L], zero where masked -> scalar."""


def per_answer(values: Tensor, scope: Scope) -> Tensor:
    """Mean over the tokens of each answer, then over answers."""
    return (values.sum(1) / scope.mask.sum(1).clamp_min(1)).mean()


def per_local_token(values: Tensor, scope: Scope) -> Tensor:
    """Mean over the tokens of this micro-batch."""
    return values.sum() / scope.mask.sum().clamp_min(1)


def per_token(values: Tensor, scope: Scope) -> Tensor:
    """Mean over the tokens of all ranks (the engines average over ranks)."""
    return values.sum() / scope.tokens.clamp_min(1)


def per_budget(values: Tensor, scope: Scope) -> Tensor:
    """Sum over the tokens of each answer over the longest length, then mean over answers."""
    return values.sum() / (len(values) * scope.budget)


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """A surrogate, how it is reduced, and whether an answer has one ratio or each token its own."""

    surrogate: Surrogate
    reduction: Reduction
    one_ratio: bool = False


LOSSES = {
    "grpo": PolicyLoss(clipped, per_answer),
    "dr_grpo": PolicyLoss(clipped, per_budget),
    "bnpo": PolicyLoss(clipped, per_local_token),
    "dapo": PolicyLoss(clipped, per_token),
    "cispo": PolicyLoss(weighted, per_token),
    "gspo": PolicyLoss(clipped, per_answer, one_ratio=True),
    "sapo": PolicyLoss(gated, per_answer),
}
"""Name -> loss. Ref: DeepSeekMath; Dr. GRPO; BNPO (arXiv 2506.02864); DAPO; CISPO; GSPO (arXiv
2507.18071), whose ratio is the geometric mean over the answer's tokens; SAPO."""


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """The parts of a step; all but the loss are detached."""

    loss: Tensor
    kl: Tensor
    """Mean k3 over tokens of each answer, then over answers."""
    clipped_low: Tensor
    """Share of ratios below 1 - low whose advantage is negative: no gradient there."""
    clipped_high: Tensor
    """Share of ratios above 1 + high whose advantage is positive."""
    ratio_deviation: Tensor
    """max |π_θ / π_old - 1| over real tokens; 0 on the first update after a rollout."""


def policy_loss(
    name: str,
    log_probs: Tensor,
    old_log_probs: Tensor,
    reference_log_probs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: Clip,
    beta: float,
    budget: int,
    tokens: Tensor | None = None,
) -> PolicyTerms:
    """Return the named loss of B sampled answers: -surrogate + β k3, reduced.

    k3 = exp(d) - d - 1 with d = log π_ref - log π clamped to ±20.

    Args:
        name: key of `LOSSES`.
        log_probs: [B, L] with gradient.
        old_log_probs: [B, L] of the policy that sampled.
        reference_log_probs: [B, L] of the frozen reference; None where beta is 0.
        advantages: [B].
        mask: [B, L], 1 for real tokens; an answer whose row is 0 gives nothing.
        clip: bounds of the ratio.
        beta: weight of the KL.
        budget: longest answer allowed.
        tokens: real tokens of all ranks / number of ranks; None for one rank.
    """
    kind = LOSSES[name]
    mask = mask.to(log_probs.dtype)
    difference = (log_probs - old_log_probs) * mask
    lengths = mask.sum(1, keepdim=True).clamp_min(1)
    ratio = (difference.sum(1, keepdim=True) / lengths if kind.one_ratio else difference).exp()
    gain = advantages[:, None]
    values = -kind.surrogate(ratio, gain, log_probs, clip) * mask
    kl = torch.zeros(())
    if reference_log_probs is not None:
        distance = (reference_log_probs - log_probs).clamp(-20, 20)
        k3 = (distance.exp() - distance - 1) * mask
        values = values + beta * k3
        kl = (k3.sum(1) / lengths.squeeze(1)).mean()
    scope = Scope(mask, mask.sum() if tokens is None else tokens, budget)
    ratios, real = ratio.detach().expand_as(mask), mask.sum().clamp_min(1)
    return PolicyTerms(
        loss=kind.reduction(values, scope),
        kl=kl.detach(),
        clipped_low=((ratios < 1 - clip.low) * (gain < 0) * mask).sum() / real,
        clipped_high=((ratios > 1 + clip.high) * (gain > 0) * mask).sum() / real,
        ratio_deviation=((difference.detach().exp() - 1).abs() * mask).max(),
    )


@torch.no_grad()
def entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the mean entropy in nats of the next-token distributions [B, L, vocabulary]."""
    total = sum(
        torch.special.entr(row.float().softmax(-1)).sum(-1) @ keep.float()
        for row, keep in zip(logits, mask, strict=True)  # a row at a time: vocabularies are large
    )
    return total / mask.sum().clamp_min(1)
