"""Image files of the bank: checked, named by their SHA-256, synced before an entry names them."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from emosym.pictures.loading import UnreadableImage, load_image
from memory_bank.store.durable import Flush

_SUFFIX: dict[bytes, Literal["png", "jpg"]] = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg"}
"""First bytes of a file -> suffix, for the formats that are stored as they are."""
_NAME = re.compile(r"[0-9a-f]{64}\.(png|jpg)")


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
        raise UnreadableImage(image, error.reason) from error
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


def image_path(root: Path, sha256: str, suffix: str) -> Path:
    """Return the path of the file with this hash below the images folder."""
    return root / f"{sha256[:2]}/{sha256}.{suffix}"


def is_lost(root: Path, file: ImageFile) -> bool:
    """Return whether a file that should be stored is missing or damaged."""
    return not _holds(image_path(root, file.sha256, file.suffix), file.data)


def write_images(root: Path, files: Iterable[ImageFile]) -> None:
    """Write files durably. On an OSError all new files are deleted, and the error is raised."""
    # Written in place: a file is not read before the database names it, and the next writer deletes
    # what a crash leaves. An existing file belongs to an entry; it is rewritten only if damaged.
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
    """Yield files that a crash or a rollback left: with unknown hashes, or temporary names."""
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
    """Return whether a file exists and has these bytes."""
    return os.path.isfile(path) and path.read_bytes() == data


def _new(path: Path, data: bytes) -> BinaryIO | None:
    """Return an empty file to write; None if it exists and has these bytes."""
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
