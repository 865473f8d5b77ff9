"""Random numbers as a pure function of a key, so that a resumed run and all ranks agree."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class Draws:
    """A stream of random numbers with a key such as (purpose, seed, phase, step).

    Draw for the whole global batch and take a rank's rows: then a sample has the same noise on one
    rank and on eight.
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
