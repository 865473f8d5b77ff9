"""Reading image files from untrusted sources."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps

from data_tools.quarantine import InvalidRecord
from emosym.errors import UserError

MAX_PIXELS = 64_000_000
"""Larger images are refused before decoding, because a small file can decode to gigabytes."""

MAX_RATIO = 100
"""Maximum ratio of the longer to the shorter side. Backbones refuse 200; a crop may increase it."""


def check_image(path: Path) -> None:
    """Raise `InvalidRecord` if a file is damaged or `load_image` would refuse it."""
    try:
        with _open(path) as image:
            image.verify()
    except InvalidRecord:
        raise
    except Exception as error:
        raise InvalidRecord(f"image is damaged: {error}") from error
    _decode(path)


def load_image(path: Path) -> Image.Image:
    """Return an image file as RGB, with its EXIF orientation applied.

    Raises:
        UserError: the file is missing, empty, damaged, larger than `MAX_PIXELS`, narrower than
            `MAX_RATIO`, or has more than 16 bits per channel.
    """
    try:
        return _decode(path)
    except InvalidRecord as error:
        raise UserError(
            f"cannot read image {path}",
            got=error,
            expected="a whole image file (JPEG, PNG, ...)",
            fix="replace the file or remove it from the dataset",
        ) from error


def _open(path: Path) -> Image.Image:
    """Open a file and check its header; raise `InvalidRecord`."""
    try:
        if not path.exists():
            raise InvalidRecord("file does not exist")
        if not path.is_file():
            raise InvalidRecord("not a regular file (a folder, a pipe or a device)")
        if path.stat().st_size == 0:
            raise InvalidRecord("file is empty (0 bytes)")
        with warnings.catch_warnings():
            # Our limit is stricter than the one at which Pillow warns.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except InvalidRecord:
        raise
    except Image.DecompressionBombError as error:
        raise InvalidRecord(f"image has more than {MAX_PIXELS:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise InvalidRecord("not an image, or its header is damaged") from error
    except Exception as error:  # Pillow's decoders document no closed list of errors
        raise InvalidRecord(f"cannot be opened: {error}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise InvalidRecord(f"image has {width} x {height} pixels, more than {MAX_PIXELS:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        image.close()
        raise InvalidRecord(f"image has {width} x {height} pixels, narrower than 1 : {MAX_RATIO}")
    return image


def _decode(path: Path) -> Image.Image:
    """Decode a file completely to upright RGB; raise `InvalidRecord`."""
    try:
        with _open(path) as image:
            upright = ImageOps.exif_transpose(image)
        if upright.mode in ("I", "F"):
            raise InvalidRecord(
                "image has 32 bits per channel and no defined white level; save it with 8"
            )
        if upright.mode.startswith("I;16"):  # Pillow would clip at 255; the range is 65535
            upright = upright.convert("I").point(lambda level: level / 257).convert("L")
        return upright.convert("RGB")
    except InvalidRecord:
        raise
    except Exception as error:  # as above: any decoder error means a damaged file
        raise InvalidRecord(f"image is damaged: {error}") from error
