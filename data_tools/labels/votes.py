"""Votes: the weight of each emotion for an image, from annotators or implied by a rating."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8, NORMS
from emosym.records import Sample


def vote_problems(votes: object) -> Iterator[str]:
    """Yield the problems of a value that should map Mikels labels to finite weights >= 0."""
    if not isinstance(votes, dict):
        yield f"expected an object of emotions and weights, got {votes!r:.40}"
        return
    for name, weight in votes.items():
        if name not in MIKELS8:
            yield f"unknown emotion {name!r:.40}; expected one of {', '.join(MIKELS8)}"
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            yield f"the weight of {name!r:.40} is not a number: {weight!r:.40}"
        elif not 0 <= weight <= sys.float_info.max:
            yield f"the weight of {name!r:.40} is {weight!r:.24}; expected a finite number >= 0"
    if not any(votes.values()):
        yield "no weight is above 0; leave the key out if votes are unknown"


def implied_votes(valence: float, arousal: float) -> dict[str, float]:
    """Return the votes that a rating on `PUBLIC` implies for an image without annotated votes.

    They are the softmax over the eight labels of the negative distance |ΔV| + |ΔA| between the
    rating and the norm of each label's word. They sum to 1.
    """
    rating = Affect(valence, arousal)
    weights = {name: math.exp(-rating.distance(NORMS[name].to(rating.scale))) for name in MIKELS8}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def votes_of(sample: Sample) -> Mapping[str, float]:
    """Return a sample's votes; implied votes if it has a rating but no label; otherwise empty."""
    if sample.votes is not None:
        return sample.votes
    if sample.emotion is None and sample.valence is not None and sample.arousal is not None:
        return implied_votes(sample.valence, sample.arousal)
    return {}


def top_emotions(sample: Sample) -> tuple[str, ...] | None:
    """Return the three emotions with the most votes, or None if fewer than three have votes.

    Ties are broken in favour of the sample's label, then by the order of `MIKELS8`.
    """
    votes = {name: weight for name, weight in votes_of(sample).items() if weight > 0}
    order = sorted(
        votes, key=lambda name: (-votes[name], name != sample.emotion, MIKELS8.index(name))
    )
    return tuple(order[:3]) if len(order) >= 3 else None


def main_emotion(sample: Sample) -> str | None:
    """Return the sample's label; without a label the first of `top_emotions`, or None."""
    return sample.emotion or next(iter(top_emotions(sample) or ()), None)
