"""Checks of the ranges of option values; an error names the option."""

from __future__ import annotations

from emosym.errors import UserError


def check_positive(**values: float) -> None:
    """Raise `UserError` for the first value that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} must be positive", got=value)


def check_range(most: float = 1.0, **values: float) -> None:
    """Raise `UserError` for the first value outside [0, most]."""
    for name, value in values.items():
        if not 0 <= value <= most:
            raise UserError(f"{name} must lie in [0, {most:g}]", got=value)
