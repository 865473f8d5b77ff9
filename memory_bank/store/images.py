"""Images that are offered to the bank, as checked files, and measures of their pixels."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from emosym.pictures.loading import UnreadableImage, load_image

SUFFIXES = ("png", "jpg")
"""Suffixes of the files in a bank."""
_SUFFIX: dict[bytes, Literal["png", "jpg"]] = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg"}
"""First bytes of a file -> suffix, for the formats that are stored as they are."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The bytes of a PNG or JPEG file that decodes completely."""

    data: bytes
    sha256: str
    suffix: Literal["png", "jpg"]


GivenImage = Path | bytes | Image.Image | ImageFile
"""Forms in which an image can be given: a file, its bytes, pixels, a checked file."""
_LARGE = 32 * 1024
"""Mean bytes per file above which a batch is read in several threads. For smaller files a thread
costs more than it saves."""


def read_images(images: Sequence[GivenImage]) -> list[ImageFile]:
    """Return the checked files of images, in order. Raises as `read_image`."""
    # A PIL image loads its pixels lazily, which is not safe in several threads.
    thread_safe = not any(isinstance(image, Image.Image) for image in images)
    if thread_safe and sum(map(_bytes, images)) > _LARGE * len(images):
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # each thread holds one decoded image
            return list(pool.map(read_image, images))
    return [read_image(image) for image in images]


def read_image(image: GivenImage) -> ImageFile:
    """Return the checked file of an image.

    PNG and JPEG files keep their bytes. Anything else that `load_image` reads is stored as PNG, as
    the sRGB pixels that it returns.

    Raises `UserError` as `load_image`.
    """
    if isinstance(image, ImageFile):
        return image
    given = _read(image) if isinstance(image, Path) else image
    try:
        pixels = load_image(given)
    except UnreadableImage as error:
        raise UnreadableImage(image, error.reason, error.expected) from error
    if isinstance(given, bytes):
        for start, suffix in _SUFFIX.items():
            if given.startswith(start):
                return _checked(given, suffix)
    return _checked(_png(pixels), "png")


def _checked(data: bytes, suffix: Literal["png", "jpg"]) -> ImageFile:
    return ImageFile(data, hashlib.sha256(data).hexdigest(), suffix)


def _read(path: Path) -> bytes:
    """Return the bytes of a file; raise `UserError`."""
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may have no end
            raise UnreadableImage(path, "not a regular file (a folder, a pipe or a device)")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UnreadableImage(path, error) from error


def _bytes(image: GivenImage) -> int:
    """Return the size of an image's file; 0 if unknown, so that `read_image` reports the error."""
    if isinstance(image, Path):
        try:
            return image.stat().st_size
        except (OSError, ValueError):
            return 0
    return len(image) if isinstance(image, bytes) else 0


def contrast(image: Image.Image) -> float:
    """Return the standard deviation of the luma on [0, 1]: 0 for a flat image, at most 0.5."""
    return float(np.asarray(image.convert("L"), dtype=np.float64).std() / 255)


def fingerprint(image: Image.Image) -> int:
    """Return the difference hash (dHash, Krawetz 2013) of an image, a signed 64-bit integer.

    Each bit is 1 if one of 8 x 8 pixels is darker than its right neighbour. Near copies differ
    in few bits.
    """
    small = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    darker = np.asarray(small, np.int16)[:, :-1] < np.asarray(small, np.int16)[:, 1:]
    return int(np.packbits(darker).view(">i8")[0])


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
