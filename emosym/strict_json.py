"""JSON that others wrote, read so strictly that what comes out can be stored and printed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

DEPTH = 32
"""Most levels of nesting; datasets have three."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""A surrogate without its other half: JSON can spell it, UTF-8 cannot."""


class BadJson(ValueError):  # noqa: N818 (like `Broken`: a verdict on what was read)
    """Text that is not the JSON we take."""

    def __init__(self, path: Sequence[str | int], why: str) -> None:
        self.path = tuple(path)
        """Keys, and places in lists from 0, that lead to what is wrong; empty for the whole."""
        self.why = why
        super().__init__(f"{self.field}: {why}" if self.path else why)

    @property
    def field(self) -> str:
        """The path, joined by dots; `-` for the whole."""
        joined = ".".join(map(str, self.path)) or "-"
        return joined.encode("utf-8", "backslashreplace").decode("utf-8")


def read_json(text: str | bytes) -> object:
    """Return the value of a JSON text; bytes are UTF-8.

    Raises `BadJson` for what is not JSON, and for what Python reads but nothing after it can use:
    NaN, infinities and larger numbers than a float holds, half a character, a key that comes twice
    in one object (one of its values would be lost), more than `DEPTH` levels.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise BadJson((), "not UTF-8 text") from error
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} " if error.lineno > 1 else ""
        raise BadJson((), f"not JSON: {error.msg} at {line}column {error.colno}") from error
    except RecursionError as error:
        raise BadJson((), "not JSON that can be read: nested too deeply") from error
    _check(value, ())
    return value


def _integer(digits: str) -> int | float:
    """Read an integer, one that no float holds as an infinity: Python refuses very long ones."""
    return int(digits) if math.isfinite(float(digits)) else float(digits)


class _Repeated(dict):
    """An object in which a key came twice; the parser does not know where it stands."""

    key: str


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        found = _Repeated(found)
        keys = [key for key, _ in pairs]
        found.key = next(key for place, key in enumerate(keys) if key in keys[:place])
    return found


def _check(value: object, path: tuple[str | int, ...]) -> None:
    """Raise `BadJson` for the first value below `path` that is none of ours."""
    if len(path) > DEPTH:
        raise BadJson(path[:1], "nested too deeply")
    if isinstance(value, _Repeated):
        raise BadJson((*path, value.key), "this key comes twice")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check(key, (*path, key))
            _check(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _check(inner, (*path, place))
    elif isinstance(value, str) and _HALF_CHARACTER.search(value):
        raise BadJson(path, "a text with half a character (a lone surrogate)")
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadJson(path, "a number that is NaN, infinite or too large")
