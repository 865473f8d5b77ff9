"""Strict JSON: a reader for files of other programs, and a writer of text that is safe to show."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence

DEPTH = 32
"""Maximum depth of nesting; datasets have three levels."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""A lone surrogate: valid in JSON, not in UTF-8."""

_NOT_ASCII = re.compile(r"[^\x20-\x7e\n]")


class BadJson(ValueError):  # noqa: N818 (like `InvalidRecord`: it describes the input)
    """Text that is not strict JSON."""

    def __init__(self, path: Sequence[str | int], why: str) -> None:
        self.path = tuple(path)
        """Keys and list indices of the wrong value; empty for the whole text."""
        self.why = why
        super().__init__(f"{self.field}: {why}" if self.path else why)

    @property
    def field(self) -> str:
        """The path, joined by dots; `-` for the whole text."""
        joined = ".".join(map(str, self.path)) or "-"
        return joined.encode("utf-8", "backslashreplace").decode("utf-8")


def read_json(text: str | bytes) -> object:
    """Return the value of a JSON text; bytes are UTF-8.

    Raises `BadJson` for text that is not JSON, and for JSON that Python accepts but other code
    cannot use: NaN, infinities, numbers too large for a float, lone surrogates, a repeated key in
    an object (one of its values would be lost), more than `DEPTH` levels.
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


def to_json(value: object, *, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """Return strict JSON, as text that every UTF-8 file and terminal takes.

    Characters that cannot be printed are escaped: control characters, those that change the
    direction of text, and lone surrogates, which stand for the bytes of a file name that is not
    UTF-8. `os.fsencode` of such a name, read back by `json.loads`, is the name on the disk.

    Raises:
        ValueError: a number that is NaN or infinite.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)
    return _NOT_ASCII.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    """Return a character, or its UTF-16 units as JSON writes them (`json` leaves DEL as it is)."""
    character = match[0]
    if character.isprintable():
        return character
    return re.sub("(....)", r"\\u\1", character.encode("utf-16-be", "surrogatepass").hex())


def _integer(digits: str) -> int | float:
    """Read an integer; one too large for a float is infinite, as Python refuses very long ones."""
    return int(digits) if math.isfinite(float(digits)) else float(digits)


class _Repeated(dict):
    """An object with a repeated key; the parser does not know its path."""

    key: str


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    counts = Counter(key for key, _ in pairs)
    repeated = _Repeated(values)
    repeated.key = next(key for key in values if counts[key] > 1)
    return repeated


def _check(value: object, path: tuple[str | int, ...]) -> None:
    """Raise `BadJson` for the first value below `path` that is not allowed."""
    if len(path) > DEPTH:
        raise BadJson(path[:1], "nested too deeply")
    if isinstance(value, _Repeated):
        raise BadJson((*path, value.key), "this key comes twice")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check(key, (*path, key))
            _check(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check(inner, (*path, index))
    elif isinstance(value, str) and _HALF_CHARACTER.search(value):
        raise BadJson(path, "a text with half a character (a lone surrogate)")
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadJson(path, "a number that is NaN, infinite or too large")
