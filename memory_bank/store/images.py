"""Image files of the bank: checked, named by their SHA-256, on the disk before they count."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from emosym.errors import UserError
from memory_bank.store.durable import Flush

_SUFFIX: dict[str | None, Literal["png", "jpg"]] = {"PNG": "png", "JPEG": "jpg"}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow raises on damaged files."""
_NAME = re.compile(r"[0-9a-f]{64}\.(png|jpg)")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The bytes of a PNG or JPEG file that decodes completely."""

    data: bytes
    sha256: str
    suffix: Literal["png", "jpg"]


GivenImage = Path | bytes | Image.Image | ImageFile
_LARGE = 32 * 1024
"""Mean bytes of a batch's files above which they are read at once. Decoding lets other threads run,
but to hand over to them costs more than a small picture takes."""


def read_images(images: Sequence[GivenImage]) -> list[ImageFile]:
    """Return the checked files of images, in their order. Raises as `read_image`."""
    # A picture in memory may still have to load itself, which two threads must not do at once.
    loaded = not any(isinstance(image, Image.Image) for image in images)
    if loaded and sum(map(_bytes, images)) > _LARGE * len(images):
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # each holds a decoded picture
            return list(pool.map(read_image, images))
    return [read_image(image) for image in images]


def read_image(image: GivenImage) -> ImageFile:
    """Return the checked file of an image; a picture in memory is encoded as PNG.

    Raises `UserError` when it cannot be read, is damaged, is too large or is no PNG or JPEG.
    """
    if isinstance(image, ImageFile):
        return image
    name = str(image) if isinstance(image, Path) else "image given in memory"
    try:
        if isinstance(image, Image.Image):
            data, kind = _png(image), "PNG"  # just encoded: there is no damage to look for
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
    """Return how much of an image's file there is to read; 0 where `read_image` has to tell."""
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
    """Return 64 bits that near copies share: whether each of 8 x 8 places is darker than its right.

    As a signed integer, for SQLite. Ref: the difference hash of Krawetz 2013.
    """
    small = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    darker = np.asarray(small, np.int16)[:, :-1] < np.asarray(small, np.int16)[:, 1:]
    return int(np.packbits(darker).view(">i8")[0])


def image_path(root: Path, sha256: str, suffix: str) -> Path:
    """Return where the file of this hash lies under the images folder."""
    return root / f"{sha256[:2]}/{sha256}.{suffix}"


def is_lost(root: Path, file: ImageFile) -> bool:
    """Return whether a file that should be in place is not there, or has other bytes."""
    return not _holds(image_path(root, file.sha256, file.suffix), file.data)


def write_images(root: Path, files: Iterable[ImageFile]) -> None:
    """Put files in place; when it returns they survive a power cut.

    On an error nothing new is left behind, and the error is raised.
    """
    # Written in place: until the database names a file nobody reads it, and what a crash leaves
    # of it is swept. What is there already belongs to an entry, and is written only if damaged.
    written: list[Path] = []
    try:
        with Flush(root.parent) as flush:
            for file in files:
                path = image_path(root, file.sha256, file.suffix)
                if (stream := _new(path, file.data)) is not None:
                    written.append(path)
                    with stream:
                        stream.write(file.data)
            if written:
                flush.sync(written)
    except OSError:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def orphans(root: Path, known: set[str]) -> Iterator[Path]:
    """Yield what a crash or a rollback left: files of no known hash, and unfinished ones."""
    for folder in os.scandir(root):
        if len(folder.name) != 2 or not folder.is_dir():
            continue
        for file in os.scandir(folder):
            if file.is_dir(follow_symlinks=False):
                continue
            unfinished = file.name.startswith(".") and file.name.endswith(".tmp")
            if unfinished or (_NAME.fullmatch(file.name) and file.name[:64] not in known):
                yield Path(file)


def _holds(path: Path, data: bytes) -> bool:
    """Return whether a file is there with these bytes."""
    return os.path.isfile(path) and path.read_bytes() == data


def _new(path: Path, data: bytes) -> BinaryIO | None:
    """Return an empty file to write; None where one is there that holds these bytes."""
    try:
        return path.open("xb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except FileExistsError:
        return None if _holds(path, data) else path.open("wb")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
