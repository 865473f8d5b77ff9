"""The picture formats that every command, dataset and memory bank reads."""

from __future__ import annotations

from collections.abc import Mapping

FORMATS: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
}
"""Pillow's name of a format -> its file suffixes. MPO, as phones write it, is a JPEG file with more
pictures behind the first, which is read. Pillow's other formats are not read: some start programs,
some accept any bytes."""

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Suffixes of pictures in a folder; a file given by name may have any suffix."""

NAMES = "JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or JPEG 2000"
"""The formats, for people."""

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def name_unsupported(start: bytes) -> str | None:
    """Return the name of a known format that is not read, from the first 16 bytes of a file."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "HEIC"
    if start[:2] == b"\xff\x0a" or start[:8] == b"\0\0\0\x0cJXL ":
        return "JPEG XL"
    return None
