"""Conversion between records and database rows."""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

import numpy as np

from emosym.errors import UserError
from memory_bank.store.entry import Candidate, Provenance

T = TypeVar("T")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"a score of an image is {name}")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
_CHECKED: set[tuple[type, ...]] = set()
"""Checked combinations: record type and the types of its values, in the order of the columns."""

PROVENANCE = tuple(field.name for field in fields(Provenance))
_VALUES = operator.attrgetter(*PROVENANCE)
ENTRY = ("id", "sha256", "suffix", *PROVENANCE, "reason", "added")
REFUSAL = (*PROVENANCE, "reason", "version")


def check_numbers(candidate: Provenance) -> None:
    """Raise `UserError` for a NaN or infinite value of a judge, or contrast."""
    names = ("predicted_valence", "predicted_arousal", "confidence", "contrast")
    known = {name: getattr(candidate, name) for name in names} | dict(candidate.scores)
    for name, value in known.items():
        if value is not None and not math.isfinite(value):
            raise UserError(f"{name} of an image to keep", got=value, expected="a finite number")


def provenance(candidate: Candidate) -> list[object]:
    """Return the values in the order of `PROVENANCE`, NumPy scalars as Python scalars."""
    values = [
        value.item() if isinstance(value, np.generic) else value for value in _VALUES(candidate)
    ]
    scores = {key: float(each) for key, each in candidate.scores.items()}
    values[PROVENANCE.index("scores")] = json.dumps(scores)
    return values


def record_of(cls: type[T], columns: Sequence[str], row: Sequence[Any]) -> T:
    """Return a row as `cls`; raise ValueError for a value of a wrong type."""
    values = dict(zip(columns, row, strict=True))
    scores = values["scores"]
    values["scores"] = {} if scores == "{}" else _JSON.decode(scores)
    # Only types are checked, so each combination of types needs one check, not each row.
    kinds = (cls, *map(type, values.values()))
    if kinds not in _CHECKED:
        check_kinds(cls, values)
        _CHECKED.add(kinds)
    return cls(**values)


def check_kinds(cls: type, values: Mapping[str, object]) -> None:
    """Raise ValueError for a value of another type than its field."""
    for name, kind in _kinds(cls).items():
        # In Python a bool is an int.
        if isinstance(values[name], bool) or not isinstance(values[name], kind):
            raise ValueError(f"{name} of an image is {values[name]!r}")


@functools.cache
def _kinds(cls: type) -> dict[str, type]:
    """Return the types of a record's fields without Literals, which the database checks."""
    hints = get_type_hints(cls)
    hints["scores"] = dict
    return {name: kind for name, kind in hints.items() if get_origin(kind) is not Literal}


def insert_sql(table: str, columns: Sequence[str]) -> str:
    """Return the SQL statement that inserts a row with these columns."""
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
