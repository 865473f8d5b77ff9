"""From what the model understood to what the decoder is told."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emosym.affect.scales import PUBLIC
from emosym.models.connector import Connector
from emosym.models.heads import mlp


class Conditioner(nn.Module):
    """Emotion states and a wanted (valence, arousal) -> extra conditioning tokens.

    What was read becomes N tokens, in a way of its own for each kind; one more token and a pooled
    vector carry the wanted (valence, arousal) on `affect.PUBLIC`.
    """

    absent: nn.Parameter
    """[2, E]: the token of what was read, and that of affect, where there is none."""

    def _tell_affect(self, hidden: int, token_width: int, pooled_width: int) -> None:
        """Make what the kinds share; last, so that the kind's own weights are drawn first."""
        self.affect = nn.Sequential(
            nn.Linear(2 + 4 * len(FREQUENCIES), hidden), nn.SiLU(), nn.Linear(hidden, token_width)
        )
        self.pooled = None
        if pooled_width:
            self.pooled = nn.Linear(2 * token_width, pooled_width)
            nn.init.zeros_(self.pooled.weight)
            nn.init.zeros_(self.pooled.bias)
        self.absent = nn.Parameter(torch.zeros(2, token_width))

    def states(self, h_ctx: Tensor, h_emo: Tensor) -> Tensor:
        """Return what was read, [B, K, D] and [B, D], as conditioning tokens [B, N, E]."""
        raise NotImplementedError

    def forward(
        self, h_ctx: Tensor, h_emo: Tensor, affect: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return conditioning tokens [B, N + 1, E] and a pooled vector [B, P].

        Args:
            h_ctx: [B, K, D]; K may be 0.
            h_emo: [B, D]
            affect: [B, 2], wanted valence and arousal; NaN rows mean "not asked for".
            keep: [B] of bool; False drops the whole condition (for guidance).
        """
        read = torch.where(keep[:, None, None], self.states(h_ctx, h_emo), self.absent[0])
        asked = affect.isfinite().all(-1) & keep
        features = _fourier(torch.where(asked[:, None], affect, 0.0))
        wanted = self.affect(features.to(h_emo.dtype))
        wanted = torch.where(asked[:, None], wanted, self.absent[1])
        tokens = torch.cat([read, wanted[:, None]], dim=1)
        if self.pooled is None:
            return tokens, tokens.new_zeros(len(tokens), 0)
        return tokens, self.pooled(torch.cat([read.mean(1), wanted], dim=-1))


class PseudoWordConditioner(Conditioner):
    """One pseudo-word, `mapper(h_emo) + gate · mapper_ctx(mean_k h_ctx)`.

    Both mappers receive the decoder's gradient; the gate is learned from its published inference
    value 0.01. Ref: EmoSym §2.6-2.7 (fusion at training and at inference).
    """

    def __init__(self, width: int, hidden: int, token_width: int, pooled_width: int) -> None:
        super().__init__()
        self.mapper = mlp(width, hidden, token_width)
        self.mapper_ctx = mlp(width, hidden, token_width)
        self.gate = nn.Parameter(torch.full((1,), 0.01))
        self.norm_emo = nn.LayerNorm(width)
        self.norm_ctx = nn.LayerNorm(width)
        self._tell_affect(hidden, token_width, pooled_width)

    def states(self, h_ctx: Tensor, h_emo: Tensor) -> Tensor:
        """Return the word, [B, 1, E]; `h_ctx` adds nothing where K is 0."""
        word = self.mapper(self.norm_emo(h_emo))
        if h_ctx.shape[1]:
            word = word + self.gate * self.mapper_ctx(self.norm_ctx(h_ctx.mean(1)))
        return word[:, None]


class ConnectorConditioner(Conditioner):
    """A token for each state, [h_ctx; h_emo], after they have read one another."""

    def __init__(
        self, width: int, hidden: int, token_width: int, pooled_width: int, layers: int
    ) -> None:
        super().__init__()
        self.norm_emo = nn.LayerNorm(width)
        self.norm_ctx = nn.LayerNorm(width)
        self.connector = Connector(width, token_width, layers)
        self._tell_affect(hidden, token_width, pooled_width)

    def states(self, h_ctx: Tensor, h_emo: Tensor) -> Tensor:
        """Return K + 1 tokens, [B, K + 1, E]."""
        states = [self.norm_ctx(h_ctx), self.norm_emo(h_emo)[:, None]]
        return self.connector(torch.cat(states, dim=1))


FREQUENCIES = (0.5, 1.0, 2.0, 4.0)
"""Cycles of the Fourier features over one half of the scale."""


def _fourier(affect: Tensor) -> Tensor:
    unit = affect / PUBLIC.high
    angles = unit[..., None] * (torch.pi * unit.new_tensor(FREQUENCIES))
    return torch.cat([unit, angles.sin().flatten(-2), angles.cos().flatten(-2)], dim=-1)
