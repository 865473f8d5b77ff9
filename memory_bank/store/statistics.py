"""Numbers that summarise a bank."""

from __future__ import annotations

from typing import Any

from emosym.affect.taxonomies import MIKELS8
from memory_bank.store.store import Store


def statistics(store: Store) -> dict[str, Any]:
    """Return the numbers of a store, ready for JSON, see `MemoryBank.stats`."""
    counts, refused = store.counts()

    def total(source: str | None, label: str | None = None) -> int:
        return sum(
            count
            for (of_source, of_label), count in counts.items()
            if (source is None or of_source == source) and (label is None or of_label == label)
        )

    return {
        "version": store.state.version,
        "oldest": store.oldest,
        "size": total(None),
        "real": total("real"),
        "synthetic": total("synthetic"),
        "admitted": total("synthetic"),
        "refused": refused,
        "by_emotion": {label: total(None, label) for label in MIKELS8},
        "by_emotion_synthetic": {label: total("synthetic", label) for label in MIKELS8},
        "dim": store.dim,
        "model_hash": store.model_hash,
    }
