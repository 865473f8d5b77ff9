"""Classifier-free guidance. Ref: Ho & Salimans 2022 (arXiv 2207.12598)."""

from __future__ import annotations

from torch import Tensor


def classifier_free_guidance(
    conditional: Tensor, unconditional: Tensor, guidance_scale: float
) -> Tensor:
    """Return the guided model output, in diffusers' convention: 1 is the conditional output."""
    return unconditional + guidance_scale * (conditional - unconditional)
