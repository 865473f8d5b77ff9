"""From what the model understood to what the decoder is told."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from emosym.affect import PUBLIC
from emosym.heads import mlp


class Conditioner(nn.Module):
    """Emotion states and a wanted (valence, arousal) -> extra conditioning tokens.

    The pseudo-word is `mapper(h_emo) + gate · mapper_ctx(mean_k h_ctx)`; both mappers receive the
    decoder's gradient and the gate is learned from its published inference value 0.01.
    Ref: EmoSym §2.6-2.7 (fusion at training and at inference).
    A second token and a pooled vector carry the wanted (valence, arousal) on `affect.PUBLIC`.
    """

    tokens = 2

    def __init__(self, width: int, hidden: int, token_width: int, pooled_width: int) -> None:
        super().__init__()
        self.mapper = mlp(width, hidden, token_width)
        self.mapper_ctx = mlp(width, hidden, token_width)
        self.gate = nn.Parameter(torch.full((1,), 0.01))
        self.norm_emo = nn.LayerNorm(width)
        self.norm_ctx = nn.LayerNorm(width)
        self.affect = nn.Sequential(
            nn.Linear(2 + 4 * len(FREQUENCIES), hidden), nn.SiLU(), nn.Linear(hidden, token_width)
        )
        self.pooled = nn.Linear(2 * token_width, pooled_width)
        nn.init.zeros_(self.pooled.weight)
        nn.init.zeros_(self.pooled.bias)
        self.absent = nn.Parameter(torch.zeros(2, token_width))

    def forward(
        self, h_ctx: Tensor, h_emo: Tensor, affect: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return conditioning tokens [B, 2, E] and a pooled vector [B, P].

        Args:
            h_ctx: [B, K, D]; it adds nothing where K is 0.
            h_emo: [B, D]
            affect: [B, 2], wanted valence and arousal; NaN rows mean "not asked for".
            keep: [B] of bool; False drops the whole condition (for guidance).
        """
        word = self.mapper(self.norm_emo(h_emo))
        if h_ctx.shape[1]:
            word = word + self.gate * self.mapper_ctx(self.norm_ctx(h_ctx.mean(1)))
        asked = affect.isfinite().all(-1) & keep
        features = _fourier(torch.where(asked[:, None], affect, 0.0))
        wanted = self.affect(features.to(h_emo.dtype))
        tokens = torch.stack(
            [
                torch.where(keep[:, None], word, self.absent[0]),
                torch.where(asked[:, None], wanted, self.absent[1]),
            ],
            dim=1,
        )
        return tokens, self.pooled(rearrange(tokens, "b n e -> b (n e)"))


FREQUENCIES = (0.5, 1.0, 2.0, 4.0)
"""Cycles of the Fourier features over one half of the scale."""


def _fourier(affect: Tensor) -> Tensor:
    unit = affect / PUBLIC.high
    angles = unit[..., None] * (torch.pi * unit.new_tensor(FREQUENCIES))
    return torch.cat([unit, angles.sin().flatten(-2), angles.cos().flatten(-2)], dim=-1)
