"""Resolving the file names in a dataset's tables; they must stay within the dataset's folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from data_tools.quarantine import InvalidRecord


def locate(root: Path, relative: object) -> Path:
    """Return the absolute path of a file named in a dataset.

    Args:
        root: folder of the dataset.
        relative: the name, a path relative to `root` with `/` between folders.

    Raises:
        InvalidRecord: not such a path; outside of `root`, also through a link; no file there, or
            an empty one.
    """
    if not isinstance(relative, str) or not relative:
        raise InvalidRecord(f"path is not a non-empty string: got {relative!r}")
    if "\0" in relative or "\\" in relative:
        raise InvalidRecord(f"path {relative!r} must separate folders by /")
    path = PurePosixPath(relative)
    if path.is_absolute():
        raise InvalidRecord(
            f"path {relative!r} is absolute; write it relative to the dataset's folder"
        )
    if ".." in path.parts:
        raise InvalidRecord(f"path {relative!r} leaves the dataset's folder")
    full = root.absolute() / path
    try:
        if not full.resolve().is_relative_to(root.resolve()):
            raise InvalidRecord(f"path {relative!r} leaves the dataset's folder through a link")
        if not full.is_file():
            raise InvalidRecord(f"file {relative!r} does not exist")
        if full.stat().st_size == 0:
            raise InvalidRecord(f"file {relative!r} is empty (0 bytes)")
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidRecord(f"file {relative!r} cannot be read: {why}") from error
    return full
