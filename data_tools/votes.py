"""Votes: how strongly an image evokes each emotion, as people said or as ratings imply."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8, NORMS
from emosym.records import Sample


def vote_problems(votes: object) -> Iterator[str]:
    """Yield what keeps a value from being votes: Mikels labels with finite weights from 0."""
    if not isinstance(votes, dict):
        yield f"expected an object of emotions and weights, got {votes!r:.40}"
        return
    for name, weight in votes.items():
        if name not in MIKELS8:
            yield f"unknown emotion {name!r:.40}; expected one of {', '.join(MIKELS8)}"
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            yield f"the weight of {name!r:.40} is no number: {weight!r:.40}"
        elif not 0 <= weight <= sys.float_info.max:
            yield f"the weight of {name!r:.40} is {weight!r:.24}; expected a finite number from 0"
    if not any(votes.values()):
        yield "says nothing: no weight is above 0; leave the key out when votes are unknown"


def implied_votes(valence: float, arousal: float) -> dict[str, float]:
    """Return what a rating on `affect.PUBLIC` implies where nobody was asked for emotions.

    The softmax over the eight labels of minus the distance |ΔV| + |ΔA| to the norm of each word:
    implied by nearness, not seen. Sums to 1.
    """
    here = Affect(valence, arousal)
    nearness = {name: math.exp(-here.distance(NORMS[name].to(here.scale))) for name in MIKELS8}
    total = sum(nearness.values())
    return {name: weight / total for name, weight in nearness.items()}


def votes_of(sample: Sample) -> Mapping[str, float]:
    """Return a sample's votes; implied ones where it has a rating but no label; else none."""
    if sample.votes is not None:
        return sample.votes
    if sample.emotion is None and sample.valence is not None and sample.arousal is not None:
        return implied_votes(sample.valence, sample.arousal)
    return {}


def top_emotions(sample: Sample) -> tuple[str, ...] | None:
    """Return the three emotions with most votes, or None where fewer have any.

    Of equal votes the label's come first, then the taxonomy's order.
    """
    votes = {name: weight for name, weight in votes_of(sample).items() if weight > 0}
    order = sorted(
        votes, key=lambda name: (-votes[name], name != sample.emotion, MIKELS8.index(name))
    )
    return tuple(order[:3]) if len(order) >= 3 else None


def main_emotion(sample: Sample) -> str | None:
    """Return the label, or the first of `top_emotions` where there is none."""
    return sample.emotion or next(iter(top_emotions(sample) or ()), None)
