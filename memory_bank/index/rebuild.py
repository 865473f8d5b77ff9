"""Recompute all vectors of a bank with another embedder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from emosym.errors import UserError
from memory_bank.store.database import State
from memory_bank.store.image_files import image_file
from memory_bank.store.inspection import Show
from memory_bank.store.store import Store
from memory_bank.store.vectors import check_vectors

Embed = Callable[[Sequence[Path]], np.ndarray]
"""Takes image files, returns their vectors [N, D]."""
_BATCH = 64


def rebuild(store: Store, embed: Embed, dim: int, model_hash: str, show: Show) -> None:
    """Give every live entry the vector of another embedder, as one version in one transaction.

    Vectors of two embedders cannot be compared, so entries that are not live, older versions and
    tags are deleted. Predictions of judges are kept.

    Raises `UserError`, with the bank unchanged, for a missing image, for a vector that is not [dim]
    or not finite, and when the disk refuses.
    """
    if dim < 1:
        raise UserError("the dimension of a bank", got=dim, expected="at least 1")
    ids = store.ids().tolist()
    state = State(store.state.generation + 1, store.state.version + 1)
    with store.writing() as db:
        db.execute("BEGIN IMMEDIATE")
        store.set_meta(
            dim=dim,
            model_hash=model_hash,
            oldest=state.version,
            last_id=store.last_id(),
        )
        gone = db.execute("DELETE FROM entries WHERE removed IS NOT NULL").rowcount
        db.execute("DELETE FROM tags")
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            marks = ", ".join("?" * len(batch))
            files = dict(
                (number, image_file(store.path, sha256, suffix))
                for number, sha256, suffix in db.execute(
                    f"SELECT id, sha256, suffix FROM entries WHERE id IN ({marks})", batch
                )
            )
            vectors = np.asarray(embed([files[number] for number in batch]))
            if len(vectors) != len(batch):
                raise ValueError(f"{len(vectors)} vectors for {len(batch)} images")
            rows = zip(check_vectors(vectors, dim), batch, strict=True)
            db.executemany(
                "UPDATE entries SET embedding = ? WHERE id = ?",
                [(vector.tobytes(), number) for vector, number in rows],
            )
            show(start + len(batch), len(ids))
        store.commit(state, "rebuild", removed=gone)
    store.dim, store.model_hash = dim, model_hash
