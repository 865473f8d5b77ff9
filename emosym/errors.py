"""`UserError`: an error in the user's input, as opposed to a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from unicodedata import category


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, got what, expected what, how to fix it.

    Command lines print `str(error)` and exit with code 2; a caller of the library may catch it. An
    `OSError` as `got` is told in words, without its number and path.
    """

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, fix: str | None = None
    ) -> None:
        parts = [what]
        if isinstance(got, OSError):
            got = got.strerror or got
        if got is not None:
            parts.append(f"got {got}")
        if expected is not None:
            parts.append(f"expected {expected}")
        if fix is not None:
            parts.append(fix)
        super().__init__(printable(" ".join("; ".join(parts).split())))


def printable(text: str, keep: str = "") -> str:
    r"""Return a text that cannot steer a terminal: its invisible characters are escaped.

    These are control and format characters (escape, bidirectional overrides, zero-width ones),
    separators of lines, surrogates of bytes that are not UTF-8, and unassigned characters; spaces
    of any width remain.

    Args:
        text: from outside.
        keep: characters that remain, such as a line end.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep or category(c) == "Zs" else repr(c)[1:-1] for c in text
    )


def in_words(error: OSError) -> str:
    """Return an error of the operating system with its path, without its number."""
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}"


def unknown(kind: str, name: object, known: Iterable[str], fix: str | None = None) -> UserError:
    """Return the error for an unknown name: it lists the known names and suggests a similar one.

    `fix` is the advice where no name is similar.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    fix = f"did you mean {near[0]!r}?" if near else fix
    return UserError(
        f"unknown {kind} {str(name)!r}", expected=f"one of {', '.join(names)}", fix=fix
    )
