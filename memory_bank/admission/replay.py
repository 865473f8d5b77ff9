"""Which remembered images join a training batch; the same key always gives the same ones.

Training on one's own images alone collapses, real images beside them bound the error, so the
synthetic share of a batch is capped. Ref: Gerstgrasser et al. 2024, arXiv 2404.01413.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emosym.errors import UserError
from memory_bank.store.entry import Entry

DEFAULT_SHARE = 0.25
"""Synthetic share of an understanding batch."""
MAX_SHARE = 0.5
"""No preset may go above it."""


def synthetic_count(batch_size: int, share: float, available: int) -> int:
    """Return how many images of a batch may be synthetic: floor(share · batch), at most available.

    Raises `UserError` when `share` lies outside [0, `MAX_SHARE`].
    """
    if not 0 <= share <= MAX_SHARE:
        raise UserError(
            "the synthetic share of a batch",
            got=share,
            expected=f"a share in [0, {MAX_SHARE}]",
            fix="a model that mostly sees its own images collapses",
        )
    return min(int(batch_size * share + 1e-9), available)


def replay(entries: Sequence[Entry], count: int, key: tuple[int, ...]) -> list[Entry]:
    """Return `count` entries, balanced over their labels, decided by `key` alone.

    Labels take turns in random order and each gives its entries without repetition; labels that
    are used up step aside, and only when all are do they start over. The order of `entries` does
    not matter. `key` holds integers >= 0, e.g. (seed, phase, step, rank, bank version).

    Raises `ValueError` when there is nothing to choose from.
    """
    if count and not entries:
        raise ValueError("replay of an empty memory; ask synthetic_count first")
    pools: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.id):
        pools.setdefault(entry.label or "", []).append(entry)
    rng = np.random.default_rng(key)
    waiting: dict[str, list[Entry]] = {}
    picked: list[Entry] = []
    while len(picked) < count:
        if not any(waiting.values()):
            waiting = {
                label: [pool[place] for place in rng.permutation(len(pool))]
                for label, pool in sorted(pools.items())
            }
        labels = [label for label, pool in waiting.items() if pool]
        picked += [waiting[labels[turn]].pop() for turn in rng.permutation(len(labels))]
    return picked[:count]
