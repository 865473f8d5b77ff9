"""Names of checkpoints, and the SHA-256 of each of their files as `sha256sum --check` reads it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from emosym.errors import UserError
from emosym.files import regular_files

SUMS = "SHA256SUMS"
_NAME = re.compile(r"step-\d{7}")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def name_of(step: int) -> str:
    """Return the name of the checkpoint after a number of steps."""
    return f"step-{step:07d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints of a run, oldest first.

    Raises:
        UserError: something else is in the folder's place.
    """
    if not os.path.lexists(folder):
        return []
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", fix="put the run's checkpoints back")
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write the file of hashes: relative path -> SHA-256. Raises OSError."""
    lines = (f"{value}  {name}\n" for name, value in sorted(sums.items()))
    (folder / SUMS).write_text("".join(lines))


def listed(folder: Path, fix: str) -> dict[str, str]:
    """Return relative path -> SHA-256 of a folder's files as saved; each file is there.

    Raises:
        UserError: no file of hashes, or one that is damaged; a file that is missing or was added;
            a link or a device.
    """
    found = {path.relative_to(folder).as_posix() for path in regular_files(folder)} - {SUMS}
    try:
        text = (folder / SUMS).read_bytes().decode()
    except FileNotFoundError:
        raise UserError(
            f"checkpoint {folder} has no {SUMS}",
            got="an older version's, or a part of one",
            fix=fix,
        ) from None
    except UnicodeDecodeError:
        raise _damaged(folder, f"{SUMS} that is not text", fix) from None
    sums: dict[str, str] = {}
    for line in text.removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in sums or not text.endswith("\n"):
            raise _damaged(folder, f"{SUMS} with another content", fix)
        sums[match[2]] = match[1]
    for name in sorted(found ^ sums.keys()):
        kind = "no" if name in sums else "an additional file"
        raise _damaged(folder, f"{kind} {name}", fix)
    return sums


def check_file(folder: Path, name: str, expected: str, fix: str) -> None:
    """Raise UserError if a file is not the one that was saved, and OSError if it is unreadable."""
    if sha256(folder / name) != expected:
        raise _damaged(folder, f"{name} with another content", fix)


def _damaged(folder: Path, got: str, fix: str) -> UserError:
    return UserError(f"checkpoint {folder} is damaged", got=got, expected=f"as in {SUMS}", fix=fix)
