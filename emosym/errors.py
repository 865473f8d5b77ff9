"""The one error that people see: a mistake in what they gave us, never a bug of ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, told in one line: what is wrong, what was got, what was expected, what to do.

    Command lines print `str(error)` and leave with exit code 2; a library caller may catch it.
    """

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, fix: str | None = None
    ) -> None:
        parts = [what]
        if got is not None:
            parts.append(f"got {got}")
        if expected is not None:
            parts.append(f"expected {expected}")
        if fix is not None:
            parts.append(fix)
        super().__init__(" ".join("; ".join(parts).split()))


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not in a list, with the nearest name if one is near."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    fix = f"did you mean {near[0]!r}?" if near else None
    return UserError(
        f"unknown {kind} {str(name)!r}", expected=f"one of {', '.join(names)}", fix=fix
    )
