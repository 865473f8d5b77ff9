"""An exported entry: a record of plain values, an image and a vector."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from emosym.errors import UserError, unknown
from memory_bank.store.entry import Candidate, Decision, Entry
from memory_bank.store.images import read_image
from memory_bank.store.rows import PROVENANCE, check_kinds
from memory_bank.store.vectors import check_vector

FIELDS = (*PROVENANCE, "reason", "sha256", "embedder")
"""Keys of a record; `embedder` made the vector, `model_hash` the image."""
_NUMBERS = (
    *("valence", "arousal", "predicted_valence", "predicted_arousal"),
    *("confidence", "contrast"),
)
_MAXIMA = {"confidence": 1.0, "contrast": 0.5}
"""Key of a value that is at least 0 -> its maximum."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """An exported entry."""

    record: Mapping[str, Any]
    """`FIELDS` with values that JSON can represent."""
    image: bytes
    """A PNG or JPEG file."""
    vector: np.ndarray
    """[D], not normalised."""
    name: str
    """File name of the image: its hash and suffix."""


def item_of(entry: Entry, image: bytes, vector: np.ndarray, embedder: str) -> Item:
    """Return an entry for export. Raises `UserError` when the image is not the entry's."""
    if hashlib.sha256(image).hexdigest() != entry.sha256:
        raise UserError(
            f"the image of entry {entry.id} does not match its hash",
            fix="see `emosym bank verify`; adding the original file again restores it",
        )
    values = {name: getattr(entry, name) for name in (*PROVENANCE, "reason", "sha256")}
    record = values | {"scores": dict(entry.scores), "embedder": embedder}
    return Item(record, image, vector, f"{entry.sha256}.{entry.suffix}")


def decision_of(item: Item, embedder: str, dim: int) -> Decision:
    """Return the decision that admits an item, with its original reason, to a bank.

    The bank has vectors [dim] of `embedder`. Raises `UserError` for another embedder or dimension,
    a field that is missing, unknown, of another type or out of range, and an image that is damaged
    or does not match the record.
    """
    values = dict(item.record)
    for name in values:
        if name not in FIELDS:
            raise unknown("field", name, FIELDS)
    for name in FIELDS:
        if name not in values:
            raise UserError(f"the field {name} is missing")
    for name in _NUMBERS:
        if type(values[name]) is int:  # JSON does not distinguish 1 and 1.0
            values[name] = float(values[name])
    try:
        check_kinds(Candidate, values | {"image": item.image, "embedding": item.vector})
        for name, score in values["scores"].items():
            if type(score) not in (int, float):
                raise ValueError(f"the score {name} is {score!r}")
        for name, high in _MAXIMA.items():
            if values[name] is not None and not 0 <= values[name] <= high:
                raise ValueError(f"the {name} is {values[name]!r}, outside [0, {high:g}]")
        if not isinstance(values["reason"], str):
            raise ValueError(f"the reason is {values['reason']!r}")
    except ValueError as error:
        raise UserError("an invalid field", got=error) from error
    reason, sha256, made_by = (values.pop(name) for name in ("reason", "sha256", "embedder"))
    if made_by != embedder:
        raise UserError(
            "the vectors were made by another model",
            got=f"model {made_by}",
            expected=f"model {embedder}",
            fix="import into a bank of that model and `emosym bank rebuild` it",
        )
    vector = check_vector(item.vector, dim)
    file = read_image(item.image)
    if file.sha256 != sha256:
        raise UserError("the image does not match its hash", got=file.sha256, expected=sha256)
    return Decision(
        candidate=Candidate(image=file, embedding=vector, **values),
        admitted=True,
        reason=reason,
    )
