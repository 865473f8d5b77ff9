"""Silences a notice of bitsandbytes that appears at every start and needs no action."""

from __future__ import annotations

import logging


def quiet_libraries() -> None:
    """Drop bitsandbytes' notice that its optional 4-bit CPU kernel is missing; keep all others.

    Call it before any other import from `model_zoo`: the notice is logged at import.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_needed)


def _is_needed(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
