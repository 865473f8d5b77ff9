"""Models by folder, or by their name on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from emosym.errors import UserError


def local(source: str | Path) -> Path:
    """Return a folder as it is, and a hub id's files once they are here.

    Raises:
        UserError: neither a folder, nor a model that could be fetched.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        files = ["*.json", "*.txt", "*.jinja", "*.safetensors"]
        return Path(snapshot_download(str(source), allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"no folder {str(source)!r}, and no such model could be fetched from the hub",
            got=str(error).strip().splitlines()[0][:200],
            fix="check the name, or fetch the files first and name their folder",
        ) from error
