"""Replay: choose bank images for a training batch, deterministically.

Training on self-generated images alone collapses; real images beside them bound the error.
Therefore the synthetic share of a batch is capped. Ref: Gerstgrasser et al. 2024, arXiv 2404.01413.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emosym.errors import UserError
from memory_bank.store.entry import Entry

MAX_SHARE = 0.5
"""Largest synthetic share that a preset may set."""


def synthetic_count(batch_size: int, share: float, available: int) -> int:
    """Return the number of synthetic images in a batch: floor(share * batch), at most `available`.

    Raises `UserError` when `share` lies outside [0, `MAX_SHARE`].
    """
    if not 0 <= share <= MAX_SHARE:
        raise UserError(
            "the synthetic share of a batch",
            got=share,
            expected=f"a share in [0, {MAX_SHARE}]",
            fix="lower it: a model that mostly trains on its own images collapses",
        )
    return min(int(batch_size * share + 1e-9), available)


def replay(entries: Sequence[Entry], count: int, key: tuple[int, ...]) -> list[Entry]:
    """Return `count` entries, balanced over their labels, as a function of `key`.

    Labels are visited round-robin in random order and yield their entries without repetition. An
    exhausted label is skipped until all labels are exhausted; then all start over. The order of
    `entries` has no influence. `key` holds integers >= 0, e.g. (seed, phase, step, bank version).

    Raises `ValueError` when `entries` is empty and `count` is not 0.
    """
    if count and not entries:
        raise ValueError("replay from no entries; bound count by synthetic_count")
    pools: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.id):
        pools.setdefault(entry.label or "", []).append(entry)
    rng = np.random.default_rng(key)
    remaining: dict[str, list[Entry]] = {}
    picked: list[Entry] = []
    while len(picked) < count:
        if not any(remaining.values()):
            remaining = {
                label: [pool[place] for place in rng.permutation(len(pool))]
                for label, pool in sorted(pools.items())
            }
        labels = [label for label, pool in remaining.items() if pool]
        picked += [remaining[labels[turn]].pop() for turn in rng.permutation(len(labels))]
    return picked[:count]
