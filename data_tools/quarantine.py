"""Invalid records of a dataset. They are listed with a reason, never dropped silently."""

from __future__ import annotations

from dataclasses import dataclass


class InvalidRecord(Exception):  # noqa: N818 (about one record; always caught by the importer)
    """A record cannot be used; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One record that cannot be used."""

    where: str
    """Its file and row, such as `train.json row 12`."""
    record: str
    """Its id or path, as far as known."""
    reason: str
    """Why it cannot be used."""
