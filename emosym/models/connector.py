"""A small transformer between the understander's states and the decoder's conditioning."""

from __future__ import annotations

from torch import Tensor, nn

HEAD_WIDTH = 64
"""Target width of an attention head."""


class Connector(nn.Module):
    """States [B, N, D] -> bidirectional self-attention -> conditioning tokens [B, N, E].

    There are no position embeddings: the states of different positions already differ. The tokens
    have unit mean square, like the output of a text encoder.
    Ref: MetaQuery (arXiv 2504.06256), section 3, encoder before projection.
    """

    def __init__(self, width: int, token_width: int, layers: int) -> None:
        super().__init__()
        heads = max(n for n in range(1, max(1, width // HEAD_WIDTH) + 1) if width % n == 0)
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
        """Return tokens [B, N, E] in the order of the states [B, N, D]."""
        for layer in self.layers:
            states = layer(states)
        return self.project(self.norm(states))
