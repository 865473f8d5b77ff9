"""What is transparent shows white, in every way that a file can say it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.emosym.pictures.test_colour import file_of, in_space, pixels_of, rgb_profile

WHITE, RED = [255, 255, 255], [255, 0, 0]


def sticker(hidden: tuple[int, int, int]) -> Image.Image:
    """Return a red square on a transparent ground that holds hidden colours, with soft edges."""
    levels = np.zeros((16, 16, 4), np.uint8)
    levels[..., :3] = hidden
    levels[4:12, 4:12] = (255, 0, 0, 255)
    levels[4, 4:12] = (0, 0, 255, 128)
    return Image.fromarray(levels)


HIDDEN = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 255)]
WAYS = {
    "in memory": lambda image: image,
    "array": np.asarray,
    "premultiplied": lambda image: image.convert("RGBa"),
    "PNG": file_of,
    "TIFF": lambda image: file_of(image, "TIFF"),
    "WebP": lambda image: file_of(image, "WEBP", lossless=True, exact=True),
    "JPEG 2000": lambda image: file_of(image, "JPEG2000"),
}


@pytest.mark.parametrize("way", WAYS)
def test_hidden_colours_do_not_matter(way):
    pictures = [pixels_of(WAYS[way](sticker(hidden))) for hidden in HIDDEN]
    for picture in pictures:
        assert np.array_equal(picture, pictures[0])
    assert pictures[0][0, 0].tolist() == WHITE
    assert pictures[0][8, 8].tolist() == RED
    assert np.abs(pictures[0][4, 8] - [127, 127, 255]).max() <= 1  # (0, 0, 255) at 128 of 255


def test_half_transparent_black_by_hand():
    levels = [[[0, 0, 0, alpha] for alpha in (0, 1, 64, 128, 254, 255)]]
    shown = pixels_of(np.array(levels, np.uint8))
    assert shown[0, :, 0].tolist() == [255, 254, 191, 127, 1, 0]  # 255 - alpha


def test_an_opaque_alpha_changes_nothing():
    noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    image = Image.fromarray(noise)
    image.putalpha(255)
    for given in (image, file_of(image), file_of(image, "TIFF")):
        assert np.array_equal(pixels_of(given), noise)


@pytest.mark.parametrize("mode", ["LA", "La", "PA"])
def test_grey_and_palette_with_alpha(mode):
    given = Image.merge("LA", (Image.new("L", (2, 1), 10), Image.new("L", (2, 1), 255)))
    given.putpixel((0, 0), (10, 0))
    if mode == "La":
        given = given.convert("La")
    if mode == "PA":
        red = Image.new("RGBA", (2, 1), (*RED, 255))
        red.putpixel((0, 0), (*RED, 0))
        given = red.convert("PA")
        assert given.mode == "PA"
    assert pixels_of(given)[0].tolist() == [WHITE, RED if mode == "PA" else [10] * 3]
    if mode == "LA":
        for kind in ("PNG", "TIFF"):
            assert pixels_of(file_of(given, kind))[0].tolist() == [WHITE, [10] * 3]


def palette(**options) -> bytes:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    for place in range(3):
        image.putpixel((place, 0), place)
    return file_of(image, options.pop("kind", "PNG"), **options)


def test_a_palette_with_alpha():
    assert pixels_of(palette())[0].tolist() == [[0] * 3, RED, [0, 0, 255]]
    one = pixels_of(palette(transparency=0))[0].tolist()
    assert one == [WHITE, RED, [0, 0, 255]]
    each = pixels_of(palette(transparency=bytes([0, 128, 255])))[0].tolist()
    assert each == [WHITE, [255, 127, 127], [0, 0, 255]]
    gif = pixels_of(palette(kind="GIF", transparency=1))[0].tolist()
    assert gif == [[0] * 3, WHITE, [0, 0, 255]]


def test_a_palette_in_memory_is_not_changed():
    image = Image.open(io.BytesIO(palette(transparency=bytes([0, 128, 255]))))
    first, second = pixels_of(image), pixels_of(image)
    assert image.mode == "P"
    assert np.array_equal(first, second)


def png(width: int, bits: int, colour: int, key: bytes, row: bytes) -> bytes:
    """Return a PNG file of one row; `key` is the content of its chunk tRNS."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + (chunk(b"tRNS", key) if key else b"")
    body += chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


KEYS = {
    "1 bit": (png(2, 1, 0, b"\0\0", b"\x40"), [WHITE, WHITE]),
    "1 bit, white": (png(2, 1, 0, b"\0\1", b"\x40"), [[0] * 3, WHITE]),
    "2 bits": (png(4, 2, 0, b"\0\1", b"\x1b"), [[0] * 3, WHITE, [170] * 3, WHITE]),
    "4 bits": (png(2, 4, 0, b"\0\3", b"\x3a"), [WHITE, [170] * 3]),
    "8 bits": (png(2, 8, 0, b"\0\3", b"\3\4"), [WHITE, [4] * 3]),
    "16 bits": (png(2, 16, 0, b"\x80\x80", b"\x80\x80\x80\x81"), [WHITE, [128] * 3]),
    "RGB": (png(2, 8, 2, b"\0\1\0\2\0\3", b"\1\2\3\1\2\4"), [WHITE, [1, 2, 4]]),
    "RGB of 16 bits": (
        png(2, 16, 2, b"\1\1\2\2\3\3", b"\1\1\2\2\3\3" + b"\1\1\2\2\4\4"),
        [WHITE, [1, 2, 4]],
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_transparent_colour(name):
    data, pixels = KEYS[name]
    assert pixels_of(data)[0].tolist() == pixels
    with Image.open(io.BytesIO(data)) as opened:
        assert pixels_of(opened)[0].tolist() == pixels


def test_sixteen_bits_with_alpha():
    row = struct.pack(">8H", 257 * 200, 0, 0, 0, 257 * 200, 257 * 7, 0, 65535)
    data = png(2, 16, 6, b"", row)
    assert pixels_of(data)[0].tolist() == [WHITE, [200, 7, 0]]
    grey = struct.pack(">4H", 0, 0, 257 * 9, 65535)
    data = png(2, 16, 4, b"", grey)
    assert pixels_of(data)[0].tolist() == [WHITE, [9] * 3]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_first_picture_is_read(kind):
    first, second = Image.new("RGBA", (8, 8), (0, 0, 0, 0)), Image.new("RGBA", (8, 8), "blue")
    options = {"WEBP": {"lossless": True}}.get(kind, {})
    data = file_of(first, kind, save_all=True, append_images=[second], **options)
    assert np.abs(pixels_of(data) - 255).max() <= 2


def test_the_profile_comes_before_the_white():
    """A P3 sticker: opaque colours are converted, half transparent ones are mixed in sRGB."""
    srgb = np.full((1, 2, 3), (200, 90, 60), np.uint8)
    image = Image.fromarray(in_space(srgb, "Display P3"))
    image.putalpha(Image.fromarray(np.array([[255, 128]], np.uint8)))
    shown = pixels_of(file_of(image, icc_profile=rgb_profile("Display P3")))
    mixed = srgb[0, 1] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(shown[0, 0] - srgb[0, 0]).max() <= 2
    assert np.abs(shown[0, 1] - mixed).max() <= 2


def test_the_reported_stickers(shared):
    truth = pixels_of(shared / "reports/alpha/sticker_flattened_on_white.png")
    for name in ("hidden_black", "hidden_red", "palette"):
        assert np.array_equal(pixels_of(shared / f"reports/alpha/sticker_{name}.png"), truth)
