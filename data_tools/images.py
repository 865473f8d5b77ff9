"""Reading image files that nobody has checked."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps

from data_tools.quarantine import Broken
from emosym.errors import UserError

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded: a small file can unpack to gigabytes."""

MAX_RATIO = 100
"""Of the longer side to the shorter. Backbones refuse 200, which rounding a crop may add to."""


def check_image(path: Path) -> None:
    """Raise `Broken` with the reason when `load_image` would refuse a file, or it is damaged."""
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

    Raises `UserError` that names the file when it is missing, empty, damaged, larger than
    `MAX_PIXELS`, narrower than `MAX_RATIO`, or of more than 16 bits a channel.
    """
    try:
        return _decode(path)
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
        if not path.is_file():
            raise Broken("it is a folder, a pipe or a device")
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
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise Broken(f"image has {width} x {height} pixels, more than {MAX_PIXELS:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        image.close()
        raise Broken(f"image has {width} x {height} pixels, narrower than 1 : {MAX_RATIO}")
    return image


def _decode(path: Path) -> Image.Image:
    """Decode a file in full, to RGB and upright; raise `Broken`."""
    try:
        with _open(path) as image:
            upright = ImageOps.exif_transpose(image)
        if upright.mode in ("I", "F"):
            raise Broken("image has 32 bits a channel, with no known white; save it with 8")
        if upright.mode.startswith("I;16"):  # Pillow would cut at 255 what reaches to 65535
            upright = upright.convert("I").point(lambda level: level / 257).convert("L")
        return upright.convert("RGB")
    except Broken:
        raise
    except Exception as error:  # as above: any decoder error means a damaged file
        raise Broken(f"image is damaged: {error}") from error
