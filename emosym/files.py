"""Durable files: written whole or not at all, and safe from a crash once written.

A file or folder is filled under a temporary name beside its target (`.NAME.xxxxxxxx.tmp`), synced
and renamed, then the folder that holds it is synced. A crash leaves the old file or the new one.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emosym.errors import UserError


def write_file(path: Path, data: bytes) -> None:
    """Write a file and its missing parent folders. Raises UserError; the old file stays then."""
    with reported(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically and durably. Raises OSError; the old file stays then."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, newlines as they are. Raises as `write_bytes`."""
    write_bytes(path, text.encode())


@contextmanager
def replacing(path: Path, *, many_files: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`, for a file or a folder that then takes its place.

    When the block ends, what it made there is moved to `path`, see `move`. When the block raises or
    the move fails, `path` is as before and the temporary file or folder is removed.

    Raises:
        OSError: the block made nothing, or the disk refused.
    """
    temporary = temporary_for(path)
    try:
        yield temporary
        move(temporary, path, many_files=many_files)
    finally:
        with suppress(OSError):  # the error of the block is the one to report
            remove(temporary)


def move(new: Path, target: Path, *, many_files: bool = False) -> None:
    """Sync a finished file or folder and rename it to `target` on the same file system, durably.

    A file replaces a file. A folder replaces an empty one only, see `replace_folder`. `many_files`
    syncs the whole system once instead of each file: faster for thousands of files, but errors of
    the disk are not reported.

    Raises:
        OSError: `target` is as before.
    """
    if many_files:
        os.sync()
    else:
        sync(new)
    os.replace(new, target)
    sync_entry(target.parent)


def replace_folder(new: Path, target: Path) -> None:
    """Put the finished folder `new` in the place of `target`, which may hold files, durably.

    The old folder is first renamed to a temporary name, and deleted last. It is renamed back if the
    new one cannot take its place. A link is replaced, and what it points to stays.

    Raises:
        OSError: `target` is as before.
    """
    sync(new)
    if not os.path.lexists(target):
        os.rename(new, target)
        sync_entry(target.parent)
        return
    aside = temporary_for(target)
    os.rename(target, aside)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(aside, target)
        raise
    sync_entry(target.parent)
    with suppress(OSError):  # the new folder is in its place already
        remove(aside)


def sync(path: Path) -> None:
    """Sync a file, or a folder with all that is in it, to disk. Raises OSError."""
    for inner in path.rglob("*") if path.is_dir() else ():
        sync_entry(inner)
    sync_entry(path)


def sync_entry(path: Path) -> None:
    """Sync the bytes of one file, or the names in one folder, to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_for(path: Path) -> Path:
    """Return a new hidden name beside `path`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def owner_of_temporary(path: Path) -> str | None:
    """Return the name of the file that a temporary one was to become; None for other files."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.tmp", path.name)
    return found[1] if found else None


def remove_leftovers(path: Path) -> None:
    """Delete what crashed writers of `path` left beside it. Raises OSError.

    Only for a path with a single writer: another one's temporary file would be deleted too.
    """
    _remove_temporary(path.parent, glob.escape(path.name))


def remove_all_leftovers(folder: Path) -> None:
    """Delete what crashed writers left in a folder that has a single writer. Raises OSError."""
    _remove_temporary(folder, "*")


def _remove_temporary(folder: Path, name: str) -> None:
    for left in folder.glob(f".{name}.????????.tmp"):
        remove(left)


def remove(path: Path) -> None:
    """Delete a file or a folder, if there is one. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def reported(
    what: str, fix: str = "check free space and permissions, or choose another place"
) -> Iterator[None]:
    """Raise an OSError of the block as a UserError: what failed, the cause and the fix."""
    try:
        yield
    except OSError as error:
        raise UserError(what, got=error.strerror or error, fix=fix) from error


def regular_files(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted.

    Raises:
        UserError: a symbolic link, FIFO or device in it, or the folder is one. Opening it would
            leave the folder, or hang.
    """
    check_own(folder)
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        check_own(path)
        found += regular_files(path) if path.is_dir() else [path]
    return found


def check_own(path: Path) -> None:
    """Raise UserError for a symbolic link, FIFO or device; raises OSError if nothing is there."""
    mode = path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "a FIFO, socket or device"
        raise UserError(
            f"{path} is {kind}",
            expected="a file or a folder",
            fix="what is read and written here may not leave the folder; put the file itself there",
        )
