"""Learned latent reasoning tokens: K context tokens and one emotion token, in one forward pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn


class Reasoner(nn.Module):
    """The embeddings [CTX]_1..K and [EMO] that follow the prompt; K may be 0.

    [EMO] comes last, so that under a causal mask it attends to every reasoning token.
    Ref: EmoSym, model (docs/papers.md); the release has K = 1.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.context = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.emotion = nn.Parameter(torch.randn(1, width) * 0.02)

    def forward(self, batch: int) -> Tensor:
        """Return the embeddings of the reasoning tokens and [EMO], [B, K + 1, D]."""
        return repeat(torch.cat([self.context, self.emotion]), "k d -> b k d", b=batch)


def effective_rank(states: Tensor) -> Tensor:
    """Return exp(entropy of the normalised singular values) of [K, D], averaged over B.

    From 1 (all reasoning tokens are parallel) to min(K, D); 0 for K = 0. Monitors latent collapse.
    NaN when a state is not finite. Ref: Roy & Vetterli 2007 (The effective rank, EUSIPCO).
    """
    if not states.shape[-2]:
        return states.new_zeros(())
    if not states.isfinite().all():
        return states.new_tensor(float("nan"))
    spectrum = torch.linalg.svdvals(states.float())
    share = spectrum / spectrum.sum(-1, keepdim=True).clamp_min(1e-12)
    entropy = -(share * share.clamp_min(1e-12).log()).sum(-1)
    return entropy.exp().mean()


def mean_cosine(states: Tensor) -> Tensor:
    """Return the mean cosine over all pairs of [..., N, D], averaged over the leading axes.

    From -1 / (N - 1) to 1 (all are parallel); NaN for N < 2, which has no pair.
    """
    count = states.shape[-2]
    units = F.normalize(states.float(), dim=-1)
    # The squared norm of the sum counts every pair twice, and every unit vector with itself once.
    pairs = units.sum(-2).square().sum(-1) - units.square().sum((-1, -2))
    return (pairs / (count * (count - 1))).mean() if count > 1 else pairs.new_tensor(float("nan"))


def norm_ratio(context: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean norm of reasoning embeddings [K, D] / mean norm of token embeddings [V, D].

    At a ratio far from 1, the embeddings are outside the distribution that the backbone was trained
    on.
    """
    return context.float().norm(dim=-1).mean() / tokens.float().norm(dim=-1).mean()
