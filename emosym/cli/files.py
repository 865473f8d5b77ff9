"""Input and output files of commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from emosym.errors import UserError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
"""Suffixes of images in a folder; a file given by name may have any suffix."""


def expand_images(given: Sequence[Path]) -> list[Path]:
    """Return image files in the order given; a folder stands for all images below it, sorted.

    Hidden files and folders are skipped. Raises `UserError` for a path that is no regular file,
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
        if not path.is_file():  # a pipe or a device may have no end
            raise UserError(f"no such image: {path}", expected="an image file or a folder")
    return found


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
