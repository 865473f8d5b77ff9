"""A small transformer between what was read and what the decoder attends to."""

from __future__ import annotations

from torch import Tensor, nn

HEAD = 64
"""Wanted width of an attention head."""


class Connector(nn.Module):
    """States [B, N, D] that attend to one another, both ways -> conditioning tokens [B, N, E].

    Without positions: a state says by itself which one it is. The tokens leave with unit mean
    square, as the states of a text encoder do.
    Ref: MetaQuery (arXiv 2504.06256) §3, encoder before projection.
    """

    def __init__(self, width: int, token_width: int, layers: int) -> None:
        super().__init__()
        heads = max(n for n in range(1, max(1, width // HEAD) + 1) if width % n == 0)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                heads,
                dim_feedforward=4 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Sequential(
            nn.Linear(width, token_width),
            nn.GELU(),
            nn.Linear(token_width, token_width),
            nn.RMSNorm(token_width),
        )

    def forward(self, states: Tensor) -> Tensor:
        """Return tokens in the order of the states."""
        for layer in self.layers:
            states = layer(states)
        return self.project(self.norm(states))
