"""Conversion between records and database rows."""

from __future__ import annotations

import functools
import json
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, SupportsFloat, TypeVar, get_origin, get_type_hints

import numpy as np

from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from memory_bank.store.entry import NUMBER_END, Candidate, Entry, Provenance
from memory_bank.store.images import SUFFIXES

T = TypeVar("T")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"a score of an image is {name}")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
_CHECKED: set[tuple[type, ...]] = set()
"""Checked combinations: record type and the types of its values, in the order of the columns."""

PROVENANCE = tuple(field.name for field in fields(Provenance))
_NUMBERS = ("predicted_valence", "predicted_arousal", "confidence", "contrast")
_numbers = operator.attrgetter(*_NUMBERS)
_FLOATS = ("valence", "arousal", *_NUMBERS)
_HASH = re.compile(r"[0-9a-f]{64}")
_VALUES = operator.attrgetter(*PROVENANCE)
ENTRY = ("id", "sha256", "suffix", *PROVENANCE, "reason", "added")
REFUSAL = (*PROVENANCE, "reason", "version")


def check_numbers(candidate: Provenance) -> None:
    """Raise `UserError` for a NaN or infinite value of a judge, or contrast."""
    for name, value in (
        *zip(_NUMBERS, _numbers(candidate), strict=True),
        *candidate.scores.items(),
    ):
        if value is None:
            continue
        if not isinstance(value, SupportsFloat) or not math.isfinite(value):
            raise UserError(f"{name} of an image to keep", got=value, expected="a finite number")


def provenance(candidate: Candidate) -> list[object]:
    """Return the values in the order of `PROVENANCE`, NumPy scalars as Python scalars.

    Raises `UserError` for a value of another type than its field, and for text that is not UTF-8.
    """
    values = [
        value.item() if isinstance(value, np.generic) else value for value in _VALUES(candidate)
    ]
    named = dict(zip(PROVENANCE, values, strict=True))
    for name in _FLOATS:
        if type(named[name]) is int:
            named[name] = float(named[name])
    try:
        check_kinds(Provenance, named)
        named["scores"] = json.dumps(
            {_key(key): float(each) for key, each in named["scores"].items()}
        )
        for text in named.values():
            if isinstance(text, str):
                text.encode()
    except UnicodeEncodeError as error:
        raise UserError("a text of an image is not UTF-8", got=ascii(error.object[:60])) from error
    except (ValueError, TypeError) as error:
        raise UserError("an invalid field", got=error) from error
    return list(named.values())


def _key(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a score is {name!r}")
    name.encode()
    return name


def record_of(cls: type[T], columns: Sequence[str], row: Sequence[Any]) -> T:
    """Return a row as `cls`; raise ValueError for a value of a wrong type or that cannot be.

    The row may come from elsewhere: its hash and suffix become a path, its label the key of a
    table, its numbers JSON.
    """
    values = dict(zip(columns, row, strict=True))
    scores = values["scores"]
    values["scores"] = {} if scores == "{}" else _scores(scores)
    # Only types are checked, so each combination of types needs one check, not each row.
    kinds = (cls, *map(type, values.values()))
    if kinds not in _CHECKED:
        check_kinds(cls, values)
        _CHECKED.add(kinds)
    if cls is Entry:
        if not _HASH.fullmatch(values["sha256"]) or values["suffix"] not in SUFFIXES:
            raise ValueError(f"the file of an image is {values['sha256']!r}.{values['suffix']}")
        if not 1 <= values["id"] < NUMBER_END or not 0 <= values["added"] < NUMBER_END:
            raise ValueError(f"an entry has the id {values['id']}, added at {values['added']}")
        for name in _FLOATS:
            if values[name] is not None and not math.isfinite(values[name]):
                raise ValueError(f"{name} of an image is {values[name]}")
    for name in ("emotion", "predicted"):
        if values[name] is not None and values[name] not in MIKELS8:
            raise ValueError(f"{name} of an image is {values[name]!r}")
    return cls(**values)


def _scores(text: object) -> dict[str, float]:
    """Return stored scores: an object of finite numbers."""
    if not isinstance(text, str):
        raise ValueError(f"scores of an image is {text!r}")
    try:
        scores = _JSON.decode(text)
    except RecursionError as error:
        raise ValueError("scores of an image is nested too deeply") from error
    if not isinstance(scores, dict):
        raise ValueError(f"scores of an image is {text[:60]!r}")
    for name, score in scores.items():
        if type(score) not in (int, float) or not math.isfinite(score):
            raise ValueError(f"the score {name} of an image is {score!r}")
    return scores


def check_kinds(cls: type, values: Mapping[str, object]) -> None:
    """Raise ValueError for a value of another type than its field."""
    for name, kind in _kinds(cls).items():
        # In Python a bool is an int.
        if isinstance(values[name], bool) or not isinstance(values[name], kind):
            raise ValueError(f"{name} of an image is {values[name]!r}")


@functools.cache
def _kinds(cls: type) -> dict[str, type]:
    """Return the types of a record's fields; a Literal is a text."""
    hints = get_type_hints(cls)
    hints |= {"scores": Mapping} | {
        name: str for name, kind in hints.items() if get_origin(kind) is Literal
    }
    return hints


def insert_sql(table: str, columns: Sequence[str]) -> str:
    """Return the SQL statement that inserts a row with these columns."""
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
