"""Keeping quiet what the model libraries tell everybody and nobody can act upon."""

from __future__ import annotations

import logging


def quiet_libraries() -> None:
    """Drop bitsandbytes' notice that an optional 4-bit CPU kernel is not there; all others stay.

    Call it before anything else of `model_zoo` is imported: the notice comes at import.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_matters)


def _matters(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
