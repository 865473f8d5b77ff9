"""Conditioners: from the understander's states and a wanted affect to conditioning tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emosym.affect.scales import PUBLIC
from emosym.models.connector import Connector
from emosym.models.heads import mlp
from emosym.models.whitening import Whitening


class Conditioner(nn.Module):
    """Emotion states and a wanted (valence, arousal) -> extra conditioning tokens.

    Each subclass maps the states to N tokens. One more token and a pooled vector carry
    the wanted valence and arousal on `scales.PUBLIC`.
    """

    norm_emo: nn.LayerNorm
    """Of the state of [EMO]."""
    affect: nn.Sequential
    """Fourier features of (valence, arousal) -> token."""
    pooled: nn.Linear | None
    """Mean state token and affect token -> pooled vector; None for a decoder without that input."""
    absent: nn.Parameter
    """[2, E]: learned tokens in place of dropped states, and of an affect that is not given."""

    def _build_affect(self, hidden: int, token_width: int, pooled_width: int) -> None:
        """Make the layers that all subclasses share.

        A subclass calls this after it has made its own layers: the order of construction determines
        the initial weights of a seed.
        """
        self.affect = nn.Sequential(
            nn.Linear(2 + 4 * len(FREQUENCIES), hidden), nn.SiLU(), nn.Linear(hidden, token_width)
        )
        self.pooled = None
        if pooled_width:
            self.pooled = nn.Linear(2 * token_width, pooled_width)
            nn.init.zeros_(self.pooled.weight)
            nn.init.zeros_(self.pooled.bias)
        self.absent = nn.Parameter(torch.zeros(2, token_width))

    @property
    def is_new(self) -> bool:
        """Whether it was never trained: what starts at zero, and every step changes, is zero."""
        return not (self.absent.any() or self.norm_emo.bias.any())

    def states(self, h_ctx: Tensor, h_emo: Tensor, keep: Tensor) -> Tensor:
        """Return states [B, K, D] and [B, D] as conditioning tokens [B, N, E].

        `keep` [B, 2] of bool says which of the two act; where both do not, the result is not used.
        """
        raise NotImplementedError

    @property
    def needs_fit(self) -> bool:
        """Whether it has something to `fit` before it is trained."""
        return False

    def fit(self, h_ctx: Tensor, h_emo: Tensor) -> None:
        """Adapt what is fitted and not trained to the states of N images, [N, K, D] and [N, D]."""

    def monitors(self) -> dict[str, float]:
        """Return numbers that show in the log how the conditioner learns."""
        return {}

    def forward(
        self, h_ctx: Tensor, h_emo: Tensor, affect: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return conditioning tokens [B, N + 1, E] and a pooled vector [B, P].

        Args:
            h_ctx: [B, K, D]; K may be 0.
            h_emo: [B, D]
            affect: [B, 2], wanted valence and arousal; a row with NaN means none is wanted.
            keep: [B, 3] of bool, for affect, h_ctx and h_emo; False drops that input.
        """
        keep_affect, keep_states = keep[:, 0], keep[:, 1:]
        if not h_ctx.shape[1]:
            keep_states = keep_states & keep_states.new_tensor([False, True])
        has_state = keep_states.any(1)[:, None, None]
        states = torch.where(has_state, self.states(h_ctx, h_emo, keep_states), self.absent[0])
        is_given = affect.isfinite().all(-1) & keep_affect
        features = _fourier(torch.where(is_given[:, None], affect, 0.0))
        wanted = self.affect(features.to(h_emo.dtype))
        wanted = torch.where(is_given[:, None], wanted, self.absent[1])
        tokens = torch.cat([states, wanted[:, None]], dim=1)
        if self.pooled is None:
            return tokens, tokens.new_zeros(len(tokens), 0)
        return tokens, self.pooled(torch.cat([states.mean(1), wanted], dim=-1))


class PseudoWordConditioner(Conditioner):
    """One pseudo-word, `mapper(h_emo) + gate · mapper_ctx(mean_k h_ctx)`.

    Both mappers receive the decoder's gradient. The gate is learned; it starts at 1, the value
    published for training. From 0.01, the one published for inference, it fell to 0 in the
    first shipped weights.
    Ref: EmoSym, step 3 (docs/papers.md).
    """

    def __init__(self, width: int, hidden: int, token_width: int, pooled_width: int) -> None:
        super().__init__()
        self.mapper = mlp(width, hidden, token_width)
        self.mapper_ctx = mlp(width, hidden, token_width)
        self.gate = nn.Parameter(torch.ones(1))
        self.norm_emo = nn.LayerNorm(width)
        self.norm_ctx = nn.LayerNorm(width)
        self._build_affect(hidden, token_width, pooled_width)

    def states(self, h_ctx: Tensor, h_emo: Tensor, keep: Tensor) -> Tensor:
        """Return the pseudo-word, [B, 1, E]; with K = 0 it comes from `h_emo` alone."""
        keep_ctx, keep_emo = keep[:, :1], keep[:, 1:]
        word = torch.where(keep_emo, self.mapper(self.norm_emo(h_emo)), 0.0)
        if h_ctx.shape[1]:
            context = self.gate * self.mapper_ctx(self.norm_ctx(h_ctx.mean(1)))
            word = word + torch.where(keep_ctx, context, 0.0)
        return word[:, None]

    def monitors(self) -> dict[str, float]:
        """Return the gate: near 0 the reasoning tokens do not act."""
        return {"gate": self.gate.item()}


class ConnectorConditioner(Conditioner):
    """One token for each state of [h_ctx; h_emo], after whitening and self-attention among them.

    A state that does not act enters as zeros, which no normalised state is.
    """

    def __init__(
        self, width: int, hidden: int, token_width: int, pooled_width: int, layers: int
    ) -> None:
        super().__init__()
        self.whiten_emo = Whitening(width)
        self.whiten_ctx = Whitening(width)
        self.norm_emo = nn.LayerNorm(width)
        self.norm_ctx = nn.LayerNorm(width)
        self.connector = Connector(width, token_width, layers)
        self._build_affect(hidden, token_width, pooled_width)

    def states(self, h_ctx: Tensor, h_emo: Tensor, keep: Tensor) -> Tensor:
        """Return K + 1 tokens, [B, K + 1, E]."""
        keep_ctx, keep_emo = keep[:, :1, None], keep[:, 1:, None]
        states = [
            torch.where(keep_ctx, self.norm_ctx(self.whiten_ctx(h_ctx)), 0.0),
            torch.where(keep_emo, self.norm_emo(self.whiten_emo(h_emo[:, None])), 0.0),
        ]
        return self.connector(torch.cat(states, dim=1))

    @property
    def needs_fit(self) -> bool:
        """Whether it was never trained."""
        return self.is_new

    def fit(self, h_ctx: Tensor, h_emo: Tensor) -> None:
        """Fit both whitenings."""
        self.whiten_ctx.fit(h_ctx)
        self.whiten_emo.fit(h_emo)


FREQUENCIES = (0.5, 1.0, 2.0, 4.0)
"""Cycles of the Fourier features over one half of the scale."""


def _fourier(affect: Tensor) -> Tensor:
    """Return [..., 2] with sines and cosines of it, [..., 2 + 4 F] for F frequencies."""
    unit = affect / PUBLIC.high
    angles = unit[..., None] * (torch.pi * unit.new_tensor(FREQUENCIES))
    return torch.cat([unit, angles.sin().flatten(-2), angles.cos().flatten(-2)], dim=-1)
