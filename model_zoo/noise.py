"""Keeping quiet what the model libraries tell everybody and nobody can act upon."""

from __future__ import annotations

import logging


def hush() -> None:
    """Drop the notices below for this process; every other warning stays.

    - bitsandbytes, when imported: that an optional 4-bit CPU kernel is not there;
    - transformers, when it loads: a progress bar for each part of a model.

    Call it before anything else of `model_zoo` is imported: the first is told at import.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_matters)

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def _matters(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
