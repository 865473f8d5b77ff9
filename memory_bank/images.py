"""Image files of the bank: checked, named by their SHA-256, on the disk before they count."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from emosym.errors import UserError

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


def read_image(image: Path | bytes | Image.Image | ImageFile) -> ImageFile:
    """Return the checked file of an image; a picture in memory is encoded as PNG.

    Raises `UserError` when it cannot be read, is damaged, is too large or is no PNG or JPEG.
    """
    if isinstance(image, ImageFile):
        return image
    name = str(image) if isinstance(image, Path) else "image given in memory"
    try:
        data = _bytes(image)
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
    return root / sha256[:2] / f"{sha256}.{suffix}"


def is_lost(root: Path, file: ImageFile) -> bool:
    """Return whether a file that should be in place is not there, or has other bytes."""
    path = image_path(root, file.sha256, file.suffix)
    return not path.is_file() or path.read_bytes() != file.data


def write_images(root: Path, files: Iterable[ImageFile]) -> None:
    """Put files in place durably: all synced, then renamed, then their folders synced.

    On an error nothing new is left behind, and the error is raised.
    """
    pending: list[tuple[Path, Path]] = []
    created: list[Path] = []
    try:
        for file in files:
            final = image_path(root, file.sha256, file.suffix)
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = final.with_name(f".{final.name}.tmp")
            pending.append((temporary, final))
            with temporary.open("wb") as stream:
                stream.write(file.data)
                stream.flush()
                os.fsync(stream.fileno())
        for temporary, final in pending:
            if not final.exists():
                created.append(final)
            temporary.replace(final)
        for folder in sorted({final.parent for _, final in pending}):
            sync_folder(folder)
        sync_folder(root)
    except OSError:
        for path in [temporary for temporary, _ in pending] + created:
            path.unlink(missing_ok=True)
        raise


def orphans(root: Path, known: set[str]) -> Iterator[Path]:
    """Yield what a crash or a rollback left: files of no known hash, and unfinished ones."""
    for path in root.glob("??/*"):
        unfinished = path.name.startswith(".") and path.name.endswith(".tmp")
        if unfinished or (_NAME.fullmatch(path.name) and path.stem not in known):
            yield path


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bytes(image: Path | bytes | Image.Image) -> bytes:
    if isinstance(image, Path):
        return image.read_bytes()
    if isinstance(image, bytes):
        return image
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
