"""Reading image files that nobody has checked."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps

from data_tools.quarantine import Broken
from emosym.errors import UserError

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded: a small file can unpack to gigabytes."""


def check_image(path: Path) -> None:
    """Decode an image file in full; raise `Broken` with the reason when that is impossible."""
    try:
        with _open(path) as image:
            image.verify()
    except Broken:
        raise
    except Exception as error:
        raise Broken(f"image is damaged: {error}") from error
    _decode(path)


def load_image(path: Path) -> Image.Image:
    """Return an image file as RGB, upright (EXIF orientation applied).

    Raises `UserError` that names the file when it is missing, empty, damaged or larger than
    `MAX_PIXELS`.
    """
    try:
        return ImageOps.exif_transpose(_decode(path)).convert("RGB")
    except Broken as error:
        raise UserError(
            f"cannot read image {path}",
            got=error,
            expected="a whole image file (JPEG, PNG, ...)",
            fix="replace the file or take it out of the dataset",
        ) from error


def _open(path: Path) -> Image.Image:
    """Open a file and read its header within the bounds; raise `Broken`."""
    try:
        if not path.exists():
            raise Broken("file does not exist")
        if path.is_dir():
            raise Broken("it is a folder")
        if path.stat().st_size == 0:
            raise Broken("file is empty (0 bytes)")
        with warnings.catch_warnings():
            # Our bound is stricter than the one that Pillow warns at.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except Broken:
        raise
    except Image.DecompressionBombError as error:
        raise Broken(f"image has more than {MAX_PIXELS:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise Broken("not an image, or damaged in its header") from error
    except Exception as error:  # Pillow's format readers promise no closed list of errors
        raise Broken(f"cannot be opened: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise Broken(f"image has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    return image


def _decode(path: Path) -> Image.Image:
    try:
        with _open(path) as image:
            image.load()
            return image
    except Broken:
        raise
    except Exception as error:  # as above: any decoder error means a damaged file
        raise Broken(f"image is damaged: {error}") from error
