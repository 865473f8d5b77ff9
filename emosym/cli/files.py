"""Input and output files of commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from emosym.errors import UserError, printable
from emosym.pictures.formats import NAMES, SUFFIXES

MOST_NAMED = 10
"""Files that a notice names; of more it tells the number."""


def expand_images(given: Sequence[Path]) -> list[Path]:
    """Return image files in the order given; a folder stands for all images below it, sorted.

    Files in a folder that are hidden, or of another format, are skipped and named on stderr. Raises
    `UserError` for a path that is no regular file, and for a folder without images.
    """
    found: list[Path] = []
    skipped: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        inside: list[Path] = []
        other: list[Path] = []
        for file in sorted(path.rglob("*")):
            picture = file.suffix.lower() in SUFFIXES
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if picture and not hidden:
                inside.append(file)
            elif picture == hidden and not file.is_dir():  # hidden files of other kinds: no notice
                other.append(file)
        if not inside:
            raise UserError(
                f"no images in the folder {path}",
                got=f"{len(other)} other files, such as {other[0]}" if other else None,
                expected=f"files {', '.join(sorted(SUFFIXES))}",
            )
        found += inside
        skipped += other
    for path in found:
        if not path.is_file():  # a pipe or a device may have no end
            raise UserError(f"no such image: {path}", expected="an image file or a folder")
    notice(f"skipped, as hidden or not {NAMES}", skipped)
    return found


def notice(what: str, items: Sequence[object]) -> None:
    """Print on stderr how many items there are, and the names of the first; nothing for none."""
    if not items:
        return
    names = [printable(str(item)) for item in items[:MOST_NAMED]]
    more = [f"and {len(items) - MOST_NAMED} more"] if len(items) > MOST_NAMED else []
    print(f"{what}: {len(items)}: {', '.join([*names, *more])}", file=sys.stderr)


def png_or_folder(out: Path) -> Literal["png", "folder"]:
    """Return whether --out names a PNG file or a folder; raise UserError for another format."""
    suffix = out.suffix.lower()
    if suffix == ".png" and not out.is_dir():
        return "png"
    if suffix in SUFFIXES - {".png"}:
        raise UserError(
            "images are written as PNG",
            got=f"--out {out}",
            expected=f"{out.with_suffix('.png')}, or a folder",
        )
    return "folder"


def check_new(paths: Sequence[Path]) -> None:
    """Raise UserError if one of the files exists."""
    existing = [path for path in paths if path.exists()]
    if existing:
        raise UserError(
            f"{existing[0]} exists",
            got=f"{len(existing)} of {len(paths)} files that exist" if len(paths) > 1 else None,
            fix="give another --out, or --overwrite",
        )
