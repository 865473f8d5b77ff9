"""Any picture (file, bytes, PIL image, array) as sRGB pixels on white: the one way to read one."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile, jpeg_factory

from emosym.errors import UserError
from emosym.pictures.colour import UnusableProfile, to_srgb
from emosym.pictures.formats import FORMATS, NAMES, name_unsupported
from emosym.pictures.jpeg2000 import embedded_profile

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before decoding, because a small file can decode to gigabytes."""

MAX_JPEG_PIXELS = 4 * MAX_PIXELS
"""Limit of JPEG files, because phones write 200 megapixels: above `MAX_PIXELS` they are decoded at
half their width and height."""

MAX_RATIO = 100
"""Maximum ratio of the longer to the shorter side. Backbones refuse 200; a crop may increase it."""

IGNORED = "ignored"
"""Key of a loaded image's `info`: what of the file could not be used, a list of reasons."""

ImageInput = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A path, the bytes of a file, a PIL image in any mode, or an array [H, W] or [H, W, C] with C of 1
to 4 (grey, grey and alpha, RGB, RGBA), of uint8, uint16, bool, or floats in [0, 1]. An array that
can only be [C, H, W] (C of 1, 3 or 4 is first, the last dimension is above 4) is read so."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> how the picture is turned upright."""

_SCALED = {"L;2": 85, "L;4": 17}
"""PNG's levels of 2 and 4 bits -> the factor by which Pillow scales them to 8 bits."""


class UnreadableImage(UserError):  # noqa: N818 (named as `UserError`'s subject)
    """A picture cannot be used."""

    def __init__(self, image: object, reason: object, expected: str | None = None) -> None:
        self.reason = str(reason)
        """Why, without the picture's name."""
        self.expected = expected
        """What was expected where that is no file of an image."""
        named = isinstance(image, str | os.PathLike)
        super().__init__(
            f"cannot read image {image}" if named else "cannot read an image given in memory",
            got=reason,
            expected=expected or f"a whole {NAMES} image",
            fix=None if expected else "replace it, or leave it out",
        )


def load_image(image: ImageInput) -> Image.Image:
    """Return a picture as 8-bit sRGB pixels, upright, on white: mode RGB, without metadata.

    In this order: the first frame is decoded; EXIF orientation is applied; 16 bits become 8; an ICC
    profile is converted to sRGB; what is transparent shows white. Without a profile colours are
    sRGB (CMYK by Pillow's formula); PNG's gAMA and cHRM are not used. A profile or EXIF data that
    cannot be read is ignored, as browsers do, and named in `info[IGNORED]`. A JPEG file of more
    than `MAX_PIXELS` is decoded at half its width and height. Pillow decodes a PNG file of RGB with
    16 bits to 8, so that its transparent colour (tRNS) is compared in the upper 8 bits. An image
    that is so already is returned itself.

    Raises:
        UnreadableImage: no such file; empty, damaged, or of another format than `FORMATS`; more
            pixels than `MAX_PIXELS` (JPEG: `MAX_JPEG_PIXELS`); narrower than 1 : `MAX_RATIO`; 32
            bits per channel; an array of another shape or type.
    """
    with _named(image):
        if isinstance(image, np.ndarray):
            image = _from_array(image)
        if isinstance(image, Image.Image):
            return _in_memory(image)
        with _stream(image) as stream, _opened(stream) as opened:
            return _srgb(opened)


def check_image(image: ImageInput) -> list[str]:
    """Check that `load_image` accepts a picture and that checksums in its file are right.

    Returns:
        What `load_image` would ignore in it.

    Raises:
        UnreadableImage: as `load_image`, or a wrong checksum.
    """
    with _named(image):
        if not isinstance(image, Image.Image | np.ndarray):
            with _stream(image) as stream, _opened(stream) as opened:
                opened.verify()
    return ignored(load_image(image))


def ignored(image: Image.Image) -> list[str]:
    """Return what `load_image` ignored in the file of an image that it returned."""
    return list(image.info.get(IGNORED, ()))


class _Bad(Exception):  # noqa: N818 (always caught, see `_named`)
    """The reason why a picture is refused, and what was expected if that is no file."""

    def __init__(self, reason: str, expected: str | None = None) -> None:
        super().__init__(reason)
        self.expected = expected


@contextmanager
def _named(image: ImageInput) -> Iterator[None]:
    """Raise any error of the block as `UnreadableImage` with the name of the picture."""
    try:
        yield
    except Exception as error:  # Pillow's decoders document no closed list of errors
        if isinstance(error, _Bad):
            raise UnreadableImage(image, error, error.expected) from error
        raise UnreadableImage(image, f"image is damaged: {error}") from error


@contextmanager
def _stream(image: str | os.PathLike[str] | bytes) -> Iterator[IO[bytes]]:
    """Open a file, or its bytes."""
    if isinstance(image, bytes | bytearray | memoryview):
        if not len(image):
            raise _Bad("no bytes")
        yield io.BytesIO(image)
        return
    if not isinstance(image, str | os.PathLike):
        raise _Bad(f"{type(image).__name__} is no path, bytes, PIL image or NumPy array")
    try:
        path = Path(image)
        if not path.exists():
            raise _Bad("file does not exist")
        if not path.is_file():  # a pipe or a device may have no end
            raise _Bad("not a regular file (a folder, a pipe or a device)")
        if path.stat().st_size == 0:
            raise _Bad("file is empty (0 bytes)")
        stream = path.open("rb")
    except (OSError, ValueError) as error:
        raise _Bad(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    with stream:
        yield stream


@contextmanager
def _opened(stream: IO[bytes]) -> Iterator[Image.Image]:
    """Read the header of a file and check its size."""
    start = stream.read(16)
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a size below our limits, of damaged metadata
            if start.startswith(b"\xff\xd8\xff"):
                opened: Image.Image = jpeg_factory(stream)  # without Pillow's limit of pixels
            else:
                opened = Image.open(stream, formats=list(FORMATS))
    except Image.DecompressionBombError as error:
        raise _Bad(f"image has more than {MAX_PIXELS:,} pixels") from error
    except (Image.UnidentifiedImageError, SyntaxError) as error:
        name = name_unsupported(start)
        if name is not None:
            raise _Bad(f"no decoder for {name} is installed; convert it to JPEG or PNG") from error
        raise _Bad("not an image, or its header is damaged") from error
    with opened:
        width, height = opened.size
        jpeg = isinstance(opened, JpegImageFile)
        _check_size(width, height, MAX_JPEG_PIXELS if jpeg else MAX_PIXELS)
        if width * height > MAX_PIXELS:
            opened.draft(None, (width // 2, height // 2))
        yield opened


def _check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if width * height > most:
        raise _Bad(f"image has {width} x {height} pixels, more than {most:,}")
    if not min(width, height):
        raise _Bad(f"image has {width} x {height} pixels")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise _Bad(f"image has {width} x {height} pixels, narrower than 1 : {MAX_RATIO}")


def _in_memory(image: Image.Image) -> Image.Image:
    """Return a PIL image in sRGB; one that a file was opened as, and not decoded, like the file."""
    waiting: Any = getattr(image, "tile", None) and getattr(image, "fp", None)
    if isinstance(image, JpegImageFile) and waiting and image.width * image.height > MAX_PIXELS:
        place = waiting.tell()
        waiting.seek(0)
        stream = io.BytesIO(waiting.read())  # a draft of the given image would change its size
        waiting.seek(place)
        with _opened(stream) as opened:
            return _srgb(opened)
    _check_size(image.width, image.height)
    return _srgb(image)


def _srgb(image: Image.Image) -> Image.Image:
    """Decode an image and convert it, see `load_image`."""
    key = _colour_key(image)  # before decoding, which forgets the number of bits
    stream: Any = getattr(image, "fp", None)  # closed by decoding
    boxed = embedded_profile(stream) if image.format == "JPEG2000" and stream else None
    image.load()
    profile = image.info.get("icc_profile") or boxed
    if type(image) is Image.Image and image.mode == "RGB" and not set(image.info) - {IGNORED}:
        return image
    notes: list[str] = []
    image = _upright(image, notes)
    colours, alpha = _split(image, key)
    if profile and colours.mode in ("L", "RGB", "CMYK"):
        try:
            colours = to_srgb(colours, profile)
        except UnusableProfile as reason:
            notes.append(f"its colour profile cannot be used: {reason}")
    pixels = colours.convert("RGB")
    if alpha is not None:
        pixels = Image.composite(pixels, Image.new("RGB", pixels.size, "white"), alpha)
    pixels.info = {IGNORED: notes} if notes else {}
    return pixels


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Return an image turned as its EXIF orientation says."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception as error:  # as in `_named`
        notes.append(f"its EXIF data cannot be read: {error}")
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _colour_key(image: Image.Image) -> Any:
    """Return the level or colour that a picture without alpha shows as transparent, or None.

    It is in the units of the decoded pixels: 8 bits, or 16 for mode `I;16`.
    """
    key = image.info.get("transparency")
    kind = next((tile[3] for tile in getattr(image, "tile", ())), None)
    if isinstance(key, int) and isinstance(kind, str):
        return key * _SCALED.get(kind, 1)
    if isinstance(key, tuple) and kind == "RGB;16B":  # Pillow keeps the upper byte
        return tuple(level >> 8 for level in key)
    return key


def _split(image: Image.Image, key: Any) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours of an image, in mode L, RGB, CMYK or LAB, and its alpha channel or None.

    Args:
        image: of any mode; of 16 bits only grey.
        key: see `_colour_key`.
    """
    mode = image.mode
    if mode in ("I", "F"):
        raise _Bad("image has 32 bits per channel and no defined white level; save it with 8")
    if mode.startswith("I;16"):
        levels = np.asarray(image)
        grey = Image.fromarray(_eight_bits(levels))
        shown = None if key is None else np.where(levels == key, 0, 255).astype(np.uint8)
        return grey, None if shown is None else Image.fromarray(shown)
    if mode in ("L", "RGB", "1") and key is not None:
        image = image.copy()
        image.info["transparency"] = key
        mode, image = "RGBA", image.convert("RGBA")
    elif mode in ("P", "PA"):
        mode = "RGBA" if image.has_transparency_data else "RGB"
        image = image.convert(mode)
    elif mode in ("La", "RGBa"):
        mode = {"La": "LA", "RGBa": "RGBA"}[mode]
        image = image.convert(mode)
    if mode in ("LA", "RGBA"):
        *_, alpha = image.split()
        return image.convert(mode.removesuffix("A")), alpha
    if mode == "1":
        return image.convert("L"), None
    return image if mode in ("L", "RGB", "CMYK", "LAB") else image.convert("RGB"), None


def _from_array(array: np.ndarray) -> Image.Image:
    """Return an array as an image, see `ImageInput`."""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] > 4:
        array = np.moveaxis(array, 0, 2)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or not 1 <= channels <= 4 or not array.size:
        raise _Bad(f"an array of shape {list(array.shape)}", "[H, W], [H, W, 1 to 4] or [3, H, W]")
    height, width = array.shape[:2]
    _check_size(width, height)  # before a copy: a view of a few bytes can have any shape
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise _Bad(
                f"floats from {array.min():g} to {array.max():g}", "floats in [0, 1], or uint8"
            )
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = _eight_bits(array)
    elif array.dtype != np.uint8:
        raise _Bad(f"an array of {array.dtype}", "uint8, uint16, bool, or floats in [0, 1]")
    mode = ("L", "LA", "RGB", "RGBA")[channels - 1]
    return Image.frombytes(mode, (width, height), np.ascontiguousarray(array).tobytes())


def _eight_bits(levels: np.ndarray) -> np.ndarray:
    """Return levels of 16 bits in 8."""
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)
