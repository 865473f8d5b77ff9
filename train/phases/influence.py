"""Influence: how much worse the decoder predicts an image under another image's condition.

A falling loss does not show that the decoder uses all that it is given: what it can read from one
source of the condition, it need not learn to read from another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from emosym.models.generator import Condition

EXCHANGED = {
    "state": ("h_ctx", "h_emo"),
    "ctx": ("h_ctx",),
    "affect": ("affect",),
    "text": ("text",),
}
"""Suffix of the metric `influence_...` -> the inputs of the generator that are exchanged."""
TITLES = {
    "state": "the understander's states",
    "ctx": "the reasoning tokens",
    "affect": "the wanted valence and arousal",
    "text": "the prompt",
}
PATIENCE = 4
"""Measurements in a row without influence before the user is told: a new part learns slowly."""
ERRORS = 2.0
"""Standard errors by which an influence must exceed zero."""


def influences(
    condition: Condition, losses: Callable[[Condition], Tensor]
) -> dict[str, tuple[float, float]]:
    """Return the influence of each source: its mean over images, and its standard error.

    Args:
        condition: of N images; each exchange gives image i the inputs of image i + 1. A source
            that no image has is left out.
        losses: condition -> loss of each image, [N], always with the same noise.
    """
    own = losses(condition)
    order = torch.arange(len(own), device=own.device).roll(-1)
    found = {}
    for name, inputs in EXCHANGED.items():
        if name == "affect" and condition.affect.isnan().any(1).all():
            continue
        if name == "ctx" and not condition.h_ctx.shape[1]:
            continue
        change = (losses(condition.exchanged(inputs, order)) - own).double()
        found[name] = (change.mean().item(), change.std().item() / math.sqrt(len(change)))
    return found


def warnings(measured: Mapping[str, tuple[float, float]], history: list[float]) -> list[str]:
    """Return a line for each source that has had no influence for `PATIENCE` measurements.

    `history` counts such measurements in a row, one number for each of `EXCHANGED`.
    """
    lines = []
    for place, name in enumerate(EXCHANGED):
        if name not in measured:
            continue
        mean, error = measured[name]
        history[place] = history[place] + 1 if mean <= ERRORS * error else 0
        if history[place] == PATIENCE:
            lines.append(
                f"generate: the decoder ignores {TITLES[name]}: with another image's its loss"
                f" changes by {mean:+.5f} (standard error {error:.5f}); drop the other sources"
                " more often with generate.source_dropout, or raise the learning rate"
            )
    return lines
