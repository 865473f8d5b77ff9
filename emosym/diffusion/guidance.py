"""Classifier-free guidance with one scale for the whole condition, or one for each source of it.

Ref: Ho & Salimans 2022 (arXiv 2207.12598); InstructPix2Pix (arXiv 2211.09800), section 3.2.1, for
several sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SOURCES = ("text", "affect", "state")
"""Sources of the condition, in the order in which guidance adds them: the prompt's features, wanted
valence and arousal, the understander's states."""

Scale = float | Mapping[str, float]
"""One scale, or one for each of `SOURCES`; those that are not named have 1."""

Guidance = Sequence[tuple[frozenset[str], float]]
"""Model outputs to combine: (sources that the output is conditioned on, scale of its difference to
the output before it), from fewer sources to all. The first one's scale is 1."""


def guidance_of(scale: Scale) -> Guidance:
    """Return the outputs that a guidance scale combines, as few as possible.

    With scales t, a and s of text, affect and state, the guided output is e(none)
    + t (e(T) - e(none)) + a (e(T, A) - e(T)) + s (e(T, A, S) - e(T, A)). Sources next to each other
    with equal scales are added at once, so equal scales take two outputs, and scale 1 takes one.
    """
    scales = [scale if isinstance(scale, (int, float)) else scale.get(s, 1.0) for s in SOURCES]
    guidance: list[tuple[frozenset[str], float]] = [(frozenset(), 1.0)]
    for count, each in enumerate(scales, 1):
        if guidance[-1][1] == each:
            guidance.pop()
        guidance.append((frozenset(SOURCES[:count]), each))
    return guidance


def combine(outputs: Sequence[Tensor], guidance: Guidance) -> Tensor:
    """Return the guided output of the outputs that `guidance` lists, in diffusers' convention."""
    guided = outputs[0]
    for before, after, (_, scale) in zip(outputs, outputs[1:], guidance[1:], strict=False):
        guided = guided + scale * (after - before)
    return guided
