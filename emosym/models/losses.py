"""Losses of understanding. Pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

TEMPERATURE = 0.07
"""Temperature of InfoNCE."""


def info_nce(states: Tensor, keys: Tensor, known: Tensor) -> Tensor:
    """Return the image-to-text contrastive loss with S_ij = (1 + z_i·u_j / 0.07) / 2.

    With N identical pairs the loss is log N. An image without knowledge text is neither a negative
    nor a term of the mean over N (it counts as zero). Ref: EmoSym, step 1 (docs/papers.md).

    Args:
        states: z, reasoning states of all N images of the step, [N, D].
        keys: u, their projected knowledge, [N, D].
        known: [N] of bool, False where an image has no knowledge text.
    """
    z, u = F.normalize(states.float(), dim=-1), F.normalize(keys.float(), dim=-1)
    logits = (1 + z @ u.T / TEMPERATURE) / 2
    logits = logits.masked_fill(~known, torch.finfo(logits.dtype).min)
    rows = torch.arange(len(states), device=states.device)
    losses = F.cross_entropy(logits, rows, reduction="none")
    return (losses * known).mean()


def layer_deviation(teachers: Tensor, known: Tensor) -> Tensor:
    """Return the standard deviation of each layer's states, over M images and D, [N].

    Args:
        teachers: states of all M images of the step after each layer, [M, N, D].
        known: [M] of bool; an image without knowledge is left out.
    """
    teachers = teachers.detach().float()
    weight = rearrange(known.float(), "m -> m 1 1")
    total = weight.sum().clamp_min(1) * teachers.shape[2]
    centred = teachers - (weight * teachers).sum((0, 2), keepdim=True) / total
    return ((weight * centred.square()).sum((0, 2)) / total).sqrt().clamp_min(1e-6)


def distil_loss(states: Tensor, teachers: Tensor, known: Tensor, deviation: Tensor) -> Tensor:
    """Return the mean L1 distance of student to teacher states, in standard deviations of a layer.

    An image without knowledge counts as zero, as in `info_nce`. No gradient reaches the teachers.
    Ref: CODI (arXiv 2502.21074), section 3.4, L_KD, divided by the deviation as in the release.

    Args:
        states: student states at [EMO] after each layer, [B, N, D].
        teachers: teacher states, [B, N, D].
        known: [B] of bool, False where an image has no knowledge text.
        deviation: [N], `layer_deviation` of all teachers of the step.
    """
    distances = (states.float() - teachers.detach().float()).abs().mean(2) / deviation
    return (distances.mean(1) * known).mean()


def label_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy over B images; an unlabelled one (-100) counts as zero."""
    return F.cross_entropy(logits.float(), target, reduction="none", ignore_index=-100).mean()


def affect_loss(affect: Tensor, target: Tensor) -> Tensor:
    """Return the mean smooth L1 (β = 0.5) over B images and V, A; NaN targets count as zero."""
    known = target.isfinite()
    goal = torch.where(known, target, affect.detach())
    return (F.smooth_l1_loss(affect.float(), goal, beta=0.5, reduction="none") * known).mean()


def class_posterior(
    logits: Tensor, reference_logits: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Return EmoSym's differentiable reward r̃ and KL(p || q), both means over the batch.

    c = 1[argmax p = y]; r̃ = (0.3 c + 0.7 p_y) p_y. The step's loss is CE - (r̃ - λ KL) with
    λ = `kl_weight(KL)`. Ref: EmoSym, step 2 (docs/papers.md).

    Args:
        logits: [B, Y] of the policy.
        reference_logits: [B, Y] of the frozen reference; no gradient.
        target: [B] true classes.
    """
    log_p = F.log_softmax(logits.float(), -1)
    log_q = F.log_softmax(reference_logits.detach().float(), -1)
    p_true = log_p.gather(1, target[:, None]).squeeze(1).exp()
    correct = (logits.argmax(-1) == target).float()
    reward = ((0.3 * correct + 0.7 * p_true) * p_true).mean()
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    return reward, kl


def kl_weight(kl: float) -> float:
    """Return EmoSym's adaptive weight λ of the KL; as published, it falls when the KL grows.

    Ref: EmoSym, step 2 (docs/papers.md).
    """
    if kl > 0.5:
        return 0.05
    return 0.2 if kl < 0.1 else 0.1


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Return log π of each answer token, [B, L], from logits [B, L, vocabulary]."""
    logits = logits.float()
    # Less memory than a softmax of the whole vocabulary, which would be kept for the gradient.
    return logits.gather(-1, ids[..., None]).squeeze(-1) - logits.logsumexp(-1)


def row_by_row(function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, ids: Tensor) -> Tensor:
    """Apply a function to each row of logits [N, L, vocabulary] and ids [N, L], and stack.

    What it makes of the logits (a float32 copy) exists for one row at a time; the backward pass
    computes it again.
    """
    pairs = zip(logits.unbind(), ids.unbind(), strict=True)
    rows = [
        checkpoint(function, *pair, use_reentrant=False, preserve_rng_state=False) for pair in pairs
    ]
    return torch.stack(rows)


def language_loss(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy, mean over the tokens of each answer, then over B answers.

    An answer whose mask is all zero counts as zero.
    """
    if logits.dtype == torch.float32:
        picked = token_log_probs(logits, ids) * mask
    else:
        picked = row_by_row(token_log_probs, logits, ids) * mask
    return -(picked.sum(1) / mask.sum(1).clamp_min(1)).mean()
