"""Images that are offered to the bank, as checked files, and measures of their pixels."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from emosym.errors import UserError

SUFFIXES = ("png", "jpg")
"""Suffixes of the files in a bank."""
_SUFFIX: dict[str | None, Literal["png", "jpg"]] = {"PNG": "png", "JPEG": "jpg"}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow raises on damaged files."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The bytes of a PNG or JPEG file that decodes completely."""

    data: bytes
    sha256: str
    suffix: Literal["png", "jpg"]


GivenImage = Path | bytes | Image.Image | ImageFile
"""Forms in which an image can be given: a PNG or JPEG file, its bytes, pixels, a checked file."""
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
    """Return the checked file of an image; pixels are encoded as PNG.

    Raises `UserError` when it cannot be read, is damaged, is too large or is no PNG or JPEG.
    """
    if isinstance(image, ImageFile):
        return image
    name = str(image) if isinstance(image, Path) else "image given in memory"
    kind: str | None
    try:
        if isinstance(image, Image.Image):
            data, kind = _png(image), "PNG"  # just encoded, so not damaged
        else:
            data = image if isinstance(image, bytes) else image.read_bytes()
            with Image.open(io.BytesIO(data)) as picture:
                picture.load()
                kind = picture.format
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise UserError(
            f"unreadable image {name}", got=error, expected="a complete PNG or JPEG file"
        ) from error
    if kind not in _SUFFIX:
        raise UserError(
            f"unsupported image {name}", got=kind, expected="PNG or JPEG", fix="convert it first"
        )
    return ImageFile(data, hashlib.sha256(data).hexdigest(), _SUFFIX[kind])


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
