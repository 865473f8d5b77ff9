"""Files that commands take and leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from emosym.errors import UserError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
"""What counts as an image inside a folder; a file that is named itself may be called anything."""


def expand_images(given: Sequence[Path]) -> list[Path]:
    """Return image files in the order given, a folder as all images below it, sorted.

    Hidden files and folders are left out. Raises `UserError` for a path that is no regular file,
    and for a folder without images.
    """
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not inside:
            raise UserError(
                f"no images in the folder {path}", expected=f"files {', '.join(sorted(SUFFIXES))}"
            )
        found += inside
    for path in found:
        if not path.is_file():  # nor does the reading of a pipe or a device have to end
            raise UserError(f"no such image: {path}", expected="an image file or a folder")
    return found


def png_or_folder(out: Path) -> Literal["png", "folder"]:
    """Tell whether --out names one PNG file or a folder; raise UserError for another format."""
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
    """Raise UserError when one of the files exists already."""
    taken = [path for path in paths if path.exists()]
    if taken:
        raise UserError(
            f"{taken[0]} exists",
            got=f"{len(taken)} of {len(paths)} files that exist" if len(paths) > 1 else None,
            fix="give another --out, or --overwrite",
        )
