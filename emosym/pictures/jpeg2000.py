"""The colour profile of a JPEG 2000 file, which Pillow does not read."""

from __future__ import annotations

from typing import IO

from PIL.Jpeg2KImagePlugin import BoxReader

_ICC_METHODS = (2, 3)
"""Values of METH in a colour specification box with an ICC profile: restricted, and any."""


def embedded_profile(stream: IO[bytes]) -> bytes | None:
    """Return the first ICC profile of a JPEG 2000 file, or None; the stream stays where it is.

    Ref: ISO/IEC 15444-1, I.5.3.3 (colour specification box).
    """
    place = stream.tell()
    stream.seek(0)
    try:
        reader = BoxReader(stream)
        while reader.next_box_type() != b"jp2h":
            pass
        header = reader.read_boxes()
        while header.has_next_box():
            if header.next_box_type() != b"colr":
                continue
            method, _, _ = header.read_fields(">BBB")
            if method in _ICC_METHODS:
                [profile] = header.read_fields(f">{header.remaining_in_box}s")
                return bytes(profile)
    except (SyntaxError, OSError):  # a code stream without boxes has no profile
        return None
    finally:
        stream.seek(place)
    return None
