"""States in coordinates in which they vary alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 1e-3
"""Share of the mean variance that is added to each variance: directions with less are noise."""


class Whitening(nn.Module):
    """States [B, N, D] -> states whose D features are uncorrelated, each of variance 1.

    Ten directions hold most of the variance of the reasoning tokens, and a network learns first
    what lies in these. Whitening lets it learn all directions alike.
    Mean and matrix are fitted, not trained. Until then they return the states unchanged.
    Ref: Kessy et al. 2018 (doi 10.1080/00031305.2016.1277159), ZCA whitening.
    """

    mean: Tensor
    """[D]"""
    matrix: Tensor
    """[D, D], symmetric."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))

    def forward(self, states: Tensor) -> Tensor:
        """Return (states - mean) · matrix."""
        return (states - self.mean) @ self.matrix

    @torch.no_grad()
    def fit(self, states: Tensor) -> None:
        """Take mean and covariance from states [..., D].

        No state changes nothing. States that are all equal give no matrix.
        """
        rows = states.detach().flatten(0, -2).double().cpu()
        if not len(rows):
            return
        mean = rows.mean(0)
        self.mean.copy_(mean)
        variances, directions = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        if variances.mean() > 0:
            scales = (variances.clamp(min=0) + FLOOR * variances.mean()).rsqrt()
            self.matrix.copy_((directions * scales) @ directions.T)
