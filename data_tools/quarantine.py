"""Records that cannot be used: set aside with a reason, never dropped in silence."""

from __future__ import annotations

from dataclasses import dataclass


class Broken(Exception):  # noqa: N818 (a verdict on one record, not an error of the program)
    """A record cannot be used; the text is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One record that was set aside."""

    where: str
    """File and row it came from, like `train.json row 12`."""
    record: str
    """Id or path of the record, as far as it is known."""
    reason: str
