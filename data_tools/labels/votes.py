"""Checking votes: the weight of each emotion for an image, as annotated."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from emosym.affect.taxonomies import MIKELS8


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
