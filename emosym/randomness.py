"""Random numbers as a pure function of what they are for, so that resuming and ranks agree."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class Draws:
    """Random numbers for one purpose, keyed by values such as (seed, phase, step).

    Draw for the whole global batch and take a rank's rows: one rank and eight then see the same
    noise for the same sample.
    """

    def __init__(self, *key: int | str) -> None:
        digest = hashlib.sha256(repr(key).encode()).digest()
        self.generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers."""
        return torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.generator)

    def permutation(self, count: int) -> Tensor:
        """Return a permutation of range(count)."""
        return torch.randperm(count, generator=self.generator)
