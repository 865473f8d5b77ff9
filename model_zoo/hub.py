"""Models by folder, or by their name on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from emosym.errors import UserError

WHOLE = ("*.json", "*.txt", "*.jinja", "*.safetensors")
"""Files that a model of transformers consists of."""


def local(source: str | Path, wanted: Sequence[str] = WHOLE, unwanted: Sequence[str] = ()) -> Path:
    """Return a folder as it is, and a hub id's files once they are here.

    Args:
        source: folder, or name on the hub.
        wanted: patterns of the files that are fetched.
        unwanted: patterns of those that are not, all the same.

    Raises:
        UserError: neither a folder, nor a model that could be fetched.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        found = snapshot_download(
            str(source), allow_patterns=list(wanted), ignore_patterns=list(unwanted)
        )
        return Path(found)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"no folder {str(source)!r}, and no such model could be fetched from the hub",
            got=str(error).strip().splitlines()[0][:200],
            fix="check the name, or fetch the files first and name their folder",
        ) from error
