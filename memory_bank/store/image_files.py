"""Image files in a bank's folder: named by their SHA-256, synced before an entry names them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from emosym.errors import UserError
from memory_bank.confined import create_file, delete_file, open_file, open_folder, read_file
from memory_bank.store.durable import Flush
from memory_bank.store.images import ImageFile

FOLDER = "images"
_HEX = re.compile(r"[0-9a-f]{2}")
_NAME = re.compile(r"[0-9a-f]{64}\.(png|jpg)")


def image_name(sha256: str, suffix: str) -> str:
    """Return the path, in a bank's folder, of the file with this hash."""
    return f"{FOLDER}/{sha256[:2]}/{sha256}.{suffix}"


def image_file(bank: Path, sha256: str, suffix: str) -> Path:
    """Return the file with this hash, for code that opens it by its path.

    A missing file is left to that code. Raises `Misplaced` for a link or anything but a file.
    """
    name = image_name(sha256, suffix)
    with suppress(FileNotFoundError):
        os.close(open_file(bank, name))
    return bank / name


def is_lost(bank: Path, file: ImageFile) -> bool:
    """Return whether a file that should be stored is missing, damaged or no file."""
    try:
        return read_file(bank, image_name(file.sha256, file.suffix)) != file.data
    except (OSError, UserError):
        return True


def write_images(bank: Path, files: Iterable[ImageFile]) -> None:
    """Write files durably. On an OSError all new files are deleted, and the error is raised.

    Raises `Misplaced` when a folder for them is no folder, or a link.
    """
    # Written in place: a file is not read before the database names it, and the next writer deletes
    # what a crash leaves. An existing file belongs to an entry; it is replaced only if damaged.
    written: list[str] = []
    try:
        with Flush(bank) as flush:
            for file in files:
                name = image_name(file.sha256, file.suffix)
                try:
                    descriptor = create_file(bank, name)
                except FileExistsError:
                    if not is_lost(bank, file):
                        continue
                    # Not overwritten: it may be a link, or have other names (hard links).
                    delete_file(bank, name)
                    descriptor = create_file(bank, name)
                written.append(name)
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(file.data)
            if written:
                flush.sync([bank / name for name in written])
    except OSError:
        delete_images(bank, written)
        raise


def delete_images(bank: Path, names: Iterable[str]) -> None:
    """Delete files by their paths in a bank's folder. Raises `OSError`, `Misplaced`."""
    for name in names:
        delete_file(bank, name)


def orphans(bank: Path, known: set[str]) -> Iterator[str]:
    """Yield the paths, in a bank's folder, of files that a crash or a rollback left.

    They have unknown hashes, or temporary names. Raises `Misplaced` for a folder that is a link.
    """
    # Some copy programs drop an empty folder. Missing files are reported by `verify`.
    if not os.path.lexists(bank / FOLDER):
        return
    with open_folder(bank, FOLDER) as images:
        folders = [f"{FOLDER}/{name}" for name in os.listdir(images) if _HEX.fullmatch(name)]
    for folder in folders:
        with open_folder(bank, folder) as inside, os.scandir(inside) as files:
            for file in files:
                unfinished = file.name.startswith(".") and file.name.endswith(".tmp")
                unknown = _NAME.fullmatch(file.name) and file.name[:64] not in known
                if (unfinished or unknown) and not file.is_dir(follow_symlinks=False):
                    yield f"{folder}/{file.name}"
