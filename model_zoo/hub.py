"""Model folders: local ones, and those downloaded from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from emosym.errors import UserError

MODEL_FILES = ("*.json", "*.txt", "*.jinja", "*.safetensors")
"""Patterns of the files that a transformers model consists of."""


def local_folder(
    source: str | Path,
    allow_patterns: Sequence[str] = MODEL_FILES,
    ignore_patterns: Sequence[str] = (),
) -> Path:
    """Return `source` if it is a folder; otherwise download the hub id and return its snapshot.

    Args:
        source: folder, or hub id.
        allow_patterns: of the files to download.
        ignore_patterns: of the files to leave out although `allow_patterns` match.

    Raises:
        UserError: neither a folder nor a model that can be downloaded.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        snapshot = snapshot_download(
            str(source),
            allow_patterns=list(allow_patterns),
            ignore_patterns=list(ignore_patterns),
        )
        return Path(snapshot)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{str(source)!r} is not a folder, and no such model can be downloaded from the hub",
            got=str(error).strip().splitlines()[0][:200],
            fix="check the name, or download the files first and give their folder",
        ) from error
