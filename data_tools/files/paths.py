"""Resolving the file names in a dataset's tables; they must stay within the dataset's folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from data_tools.quarantine import InvalidRecord
from emosym.errors import UserError

LONGEST = 4096
"""Most characters of a path in a dataset. Linux has no longer ones, and following the links of one
would take time that grows with the square of its length."""


def has_file(path: Path) -> bool:
    """Return whether a dataset has one of its files.

    Raises:
        UserError: something else has its name. Reading a pipe or a device could never end.
    """
    if path.is_file():
        return True
    if os.path.lexists(path):
        raise UserError(
            f"{path} is not a regular file (a folder, a pipe, a device or a broken link)",
            expected="a file of the dataset in that place",
            fix="put the file itself there",
        )
    return False


def locate(root: Path, relative: object) -> Path:
    """Return the absolute path of a file named in a dataset.

    Args:
        root: folder of the dataset.
        relative: the name, a path relative to `root` with `/` between folders.

    Raises:
        InvalidRecord: not such a path, or a longer one than `LONGEST`; outside of `root`, also
            through a link; no regular file there, or an empty one.
    """
    if not isinstance(relative, str) or not relative:
        raise InvalidRecord(f"path is not a non-empty string: got {relative!r}")
    if "\0" in relative or "\\" in relative:
        raise InvalidRecord(f"path {relative!r} must separate folders by /")
    if len(relative) > LONGEST:
        raise InvalidRecord(f"path {relative!r:.80}… is longer than {LONGEST} characters")
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
        if not full.exists():
            raise InvalidRecord(f"file {relative!r} does not exist")
        if not full.is_file():  # a pipe or a device may have no end
            raise InvalidRecord(
                f"file {relative!r} is not a regular file (a folder, a pipe or a device)"
            )
        if full.stat().st_size == 0:
            raise InvalidRecord(f"file {relative!r} is empty (0 bytes)")
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidRecord(f"file {relative!r} cannot be read: {why}") from error
    return full
