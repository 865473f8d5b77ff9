"""Votes: how strongly an image evokes each emotion, as annotated or as implied by a rating."""

from __future__ import annotations

import math
from collections.abc import Mapping

from emosym.affect.scales import PUBLIC, Affect
from emosym.affect.taxonomies import MIKELS8, NORMS
from emosym.records import Sample


def implied_votes(affect: Affect) -> dict[str, float]:
    """Return votes implied by a rating on `PUBLIC`, for images without a label.

    The softmax over the eight labels of minus the distance to the norm of each word. Sums to 1.
    """
    nearness = {name: math.exp(-affect.distance(NORMS[name].to(PUBLIC))) for name in MIKELS8}
    total = sum(nearness.values())
    return {name: weight / total for name, weight in nearness.items()}


def votes_of(sample: Sample) -> Mapping[str, float]:
    """Return a sample's votes. Without votes and label they are implied by its rating, if any."""
    if sample.votes is not None:
        return sample.votes
    if sample.emotion is None and sample.affect is not None:
        return implied_votes(sample.affect)
    return {}


def top_emotions(sample: Sample) -> tuple[str, ...] | None:
    """Return the three emotions with most votes, or None where fewer have any.

    Among equal votes the sample's label comes first, then the order of the taxonomy decides.
    """
    votes = {name: weight for name, weight in votes_of(sample).items() if weight > 0}
    order = sorted(
        votes, key=lambda name: (-votes[name], name != sample.emotion, MIKELS8.index(name))
    )
    return tuple(order[:3]) if len(order) >= 3 else None


def main_emotion(sample: Sample) -> str | None:
    """Return the label, or the first of `top_emotions` where there is none."""
    return sample.emotion or next(iter(top_emotions(sample) or ()), None)
