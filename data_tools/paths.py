"""Paths named by a dataset's files: they may not leave the dataset's own folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from data_tools.quarantine import Broken


def locate(root: Path, relative: object) -> Path:
    """Return the absolute path of a file that a dataset names, relative to its folder.

    Raises `Broken` when the name is not a relative path with `/`, leaves `root` (also through a
    link), or names no file, or an empty one.
    """
    if not isinstance(relative, str) or not relative:
        raise Broken(f"path is not a text: got {relative!r}")
    if "\0" in relative or "\\" in relative:
        raise Broken(f"path {relative!r} must be written with / between folders")
    path = PurePosixPath(relative)
    if path.is_absolute():
        raise Broken(f"path {relative!r} is absolute; write it relative to the dataset's folder")
    if ".." in path.parts:
        raise Broken(f"path {relative!r} leaves the dataset's folder")
    full = root.absolute() / path
    try:
        if not full.resolve().is_relative_to(root.resolve()):
            raise Broken(f"path {relative!r} leaves the dataset's folder through a link")
        if not full.is_file():
            raise Broken(f"file {relative!r} does not exist")
        if full.stat().st_size == 0:
            raise Broken(f"file {relative!r} is empty (0 bytes)")
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise Broken(f"file {relative!r} cannot be read: {error}") from error
    return full
