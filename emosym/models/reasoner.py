"""Learned latent reasoning: K context tokens and one emotion token, read in one forward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn


class Reasoner(nn.Module):
    """The embeddings [CTX]_1..K and [EMO] that follow the prompt; K may be 0.

    They are Parameters with gradients; [EMO] comes last, so under a causal mask it reads every
    reasoning token. Ref: EmoSym (10.1145/3746027.3754549), `qwen2_emo.py`; K = 1 as released.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.context = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.emotion = nn.Parameter(torch.randn(1, width) * 0.02)

    def forward(self, batch: int) -> Tensor:
        """Return the embeddings of the latent span, [B, K + 1, D]."""
        return repeat(torch.cat([self.context, self.emotion]), "k d -> b k d", b=batch)


def effective_rank(states: Tensor) -> Tensor:
    """Return exp(entropy of the normalised singular values) of [K, D], averaged over B.

    From 1 (all reasoning tokens say the same) to min(K, D); 0 without reasoning tokens. Monitors
    latent collapse. NaN when a state is not finite. Ref: Roy & Vetterli 2007.
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

    From -1 / (N - 1) to 1 (all point one way); NaN when N < 2: there is no pair.
    """
    count = states.shape[-2]
    units = F.normalize(states.float(), dim=-1)
    # The square of the sum holds every pair twice, and every unit vector with itself.
    pairs = units.sum(-2).square().sum(-1) - units.square().sum((-1, -2))
    return (pairs / (count * (count - 1))).mean() if count > 1 else pairs.new_tensor(float("nan"))


def norm_ratio(context: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean norm of the reasoning embeddings [K, D] over that of tokens [V, D].

    Far from 1, they are no longer what the backbone takes for a token.
    """
    return context.float().norm(dim=-1).mean() / tokens.float().norm(dim=-1).mean()
