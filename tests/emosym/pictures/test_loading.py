"""Files and arrays that are read, refused, or read in part."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from emosym.pictures.formats import SUFFIXES
from emosym.pictures.loading import (
    MAX_PIXELS,
    MAX_RATIO,
    UnreadableImage,
    check_image,
    load_image,
)


def huge_png(path, side: int = 20_000):
    """Write a tiny file whose header promises `side` x `side` pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def truncated(path):
    Image.effect_noise((200, 200), 80).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_truncated(tmp_path, name):
    with pytest.raises(UnreadableImage, match="damaged"):
        check_image(truncated(tmp_path / name))
    with pytest.raises(UnreadableImage, match=rf"cannot read image .*{name}; got image is damaged"):
        load_image(tmp_path / name)


def test_a_damaged_png_checksum_is_found(tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((50, 50), 80).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="damaged"):
        check_image(path)


@pytest.mark.parametrize("side", [MAX_PIXELS // 5000, 20_000])
def test_a_decompression_bomb_is_not_decoded(tmp_path, side):
    with pytest.raises(UnreadableImage, match="more than 64,000,000"):
        check_image(huge_png(tmp_path / "bomb.png", side))
    with pytest.raises(UnreadableImage, match="more than 64,000,000"):
        load_image(tmp_path / "bomb.png")


def test_empty_missing_folder_and_not_an_image(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello, I am no image")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in {
        "empty.jpg": "file is empty",
        "text.jpg": "not an image",
        "none.jpg": "does not exist",
        ".": "folder",
        "pipe.jpg": "pipe or a device",
        "/dev/zero": "pipe or a device",
    }.items():
        with pytest.raises(UnreadableImage, match=reason):
            load_image(tmp_path / name)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20), "white")
    image.paste((255, 0, 0), (0, 0, 20, 20))  # left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = load_image(tmp_path / "turned.jpg")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5))[1] < 60 < upright.getpixel((10, 35))[1]


@pytest.mark.parametrize("entry", [(0x0100, 1, 0x41), (0x0128, 4, 2**20), (0x011A, 2, 0x41)])
def test_an_orientation_beside_damaged_exif_counts(tmp_path, entry):
    """Pillow reads such EXIF, and fails to write it again without the orientation."""
    entries = sorted([(0x0112, 3, 6), entry])
    tiff = b"II*\0" + struct.pack("<IH", 8, len(entries))
    tiff += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + tiff + bytes(4))
    assert load_image(tmp_path / "a.jpg").size == (2, 4)
    assert check_image(tmp_path / "a.jpg") == []


def test_a_picture_too_narrow_for_a_backbone_is_refused(tmp_path):
    Image.new("RGB", (MAX_RATIO, 1)).save(tmp_path / "wide.png")
    assert load_image(tmp_path / "wide.png").width == MAX_RATIO
    Image.new("RGB", (3, 3 * MAX_RATIO + 1)).save(tmp_path / "narrow.png")
    with pytest.raises(UnreadableImage, match="3 x 301 pixels, narrower than 1 : 100"):
        check_image(tmp_path / "narrow.png")
    with pytest.raises(UnreadableImage, match="narrower"):
        load_image(tmp_path / "narrow.png")


def jpeg_of(width: int, height: int) -> bytes:
    """Return a JPEG file of a grey area, encoded in stripes: quick to make and to decode."""
    buffer = io.BytesIO()
    Image.new("L", (width, height), 200).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(("width", "height"), [(12_000, 9_000), (16_320, 12_240)])
def test_a_jpeg_of_a_phone_is_read_at_half_its_size(tmp_path, width, height):
    """108 megapixels, and 200, where Pillow itself refuses to open a file."""
    path = tmp_path / "phone.jpg"
    path.write_bytes(jpeg_of(width, height))
    image = load_image(path)
    assert (image.size, image.mode) == ((width // 2, height // 2), "RGB")
    assert image.getpixel((0, 0)) == image.getpixel((width // 2 - 1, 9)) == (200, 200, 200)


def test_a_jpeg_that_pillow_has_opened_is_read_at_half_its_size_too():
    with Image.open(io.BytesIO(jpeg_of(10_000, 7_000))) as opened:
        assert load_image(opened).size == (5_000, 3_500)
        assert opened.size == (10_000, 7_000)


def test_limits_of_pixels_are_told():
    with pytest.raises(UnreadableImage, match="20000 x 20000 pixels, more than 256,000,000"):
        load_image(jpeg_header(20_000, 20_000))
    with pytest.raises(UnreadableImage, match="9000 x 8000 pixels, more than 64,000,000"):
        load_image(Image.new("1", (9000, 8000)))


def jpeg_header(width: int, height: int) -> bytes:
    """Return a small JPEG file whose header promises another size."""
    data = jpeg_of(16, 16)
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


@pytest.mark.parametrize("kind", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, kind):
    levels = np.array([[0, 257, 128 * 257, 65535]])
    path = tmp_path / ("a.png" if kind == "<u2" else "a.tif")
    Image.fromarray(levels.astype(kind)).save(path)
    assert np.asarray(load_image(path))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_levels_without_a_known_white_are_refused(tmp_path, kind):
    Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match="no defined white"):
        check_image(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (8, 8)).save(tmp_path / f"a.{suffix}")
    check_image(tmp_path / f"a.{suffix}")
    assert load_image(tmp_path / f"a.{suffix}").mode == "RGB"


def test_an_image_that_is_srgb_already_is_returned_itself():
    image = Image.new("RGB", (4, 4), "red")
    assert load_image(image) is image
    loaded = load_image(Image.new("RGBA", (4, 4)))
    assert load_image(loaded) is loaded


ARRAYS = {
    "grey": (np.array([[0, 128]], np.uint8), [[0] * 3, [128] * 3]),
    "a channel of grey": (np.array([[[0], [128]]], np.uint8), [[0] * 3, [128] * 3]),
    "grey and alpha": (np.array([[[0, 0], [0, 255]]], np.uint8), [[255] * 3, [0] * 3]),
    "RGB": (np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), [[1, 2, 3], [4, 5, 6]]),
    "RGBA": (np.array([[[1, 2, 3, 0], [4, 5, 6, 255]]], np.uint8), [[255] * 3, [4, 5, 6]]),
    "16 bits": (np.array([[0, 257 * 128]], np.uint16), [[0] * 3, [128] * 3]),
    "big-endian": (np.array([[0, 257 * 128]], ">u2"), [[0] * 3, [128] * 3]),
    "bool": (np.array([[False, True]]), [[0] * 3, [255] * 3]),
    "floats": (np.array([[0.0, 0.5]]), [[0] * 3, [128] * 3]),
    "channels first": (
        np.arange(15, dtype=np.uint8).reshape(3, 1, 5),
        [[i, i + 5, i + 10] for i in range(5)],
    ),
    "floats, channels first": (np.full((3, 1, 5), 0.5, np.float32), [[128] * 3] * 5),
    "grey first": (np.full((1, 1, 5), 9, np.uint8), [[9] * 3] * 5),
    "both may be channels": (
        np.array([[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]], np.uint8).swapaxes(0, 1),
        [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    ),
    "a view": (np.array([[128, 7, 0]], np.uint8)[:, ::-2], [[0] * 3, [128] * 3]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_a_picture(name):
    array, pixels = ARRAYS[name]
    assert np.asarray(load_image(array)).tolist() == [pixels]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2, 5), np.uint8), r"shape \[2, 2, 5\]"),
        (np.zeros((2, 64, 64), np.uint8), r"shape \[2, 64, 64\]"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"shape \[1, 2, 2, 3\]"),
        (np.zeros(4, np.uint8), r"shape \[4\]"),
        (np.zeros((0, 4), np.uint8), r"shape \[0, 4\]"),
        (np.zeros((2, 2), np.int64), "array of int64; expected uint8"),
        (np.array([["a"]]), "array of <U1"),
        (np.array([[None]]), "array of object"),
        (np.array([[0.0, 255.0]]), r"floats from 0 to 255; expected floats in \[0, 1\]"),
        (np.array([[0.0, np.nan]]), "floats from nan to nan"),
    ],
)
def test_an_array_that_is_no_picture(array, reason):
    with pytest.raises(UnreadableImage, match=reason) as caught:
        load_image(array)
    assert str(caught.value).count("expected") == 1


def test_the_whole_message_of_an_array():
    with pytest.raises(UnreadableImage) as caught:
        load_image(np.zeros((5, 6, 7)))
    assert str(caught.value) == (
        "cannot read an image given in memory; got an array of shape [5, 6, 7];"
        " expected [H, W], [H, W, 1 to 4] or [3, H, W]"
    )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, bool])
@pytest.mark.parametrize("shape", [(60_000, 60_000, 3), (60_000, 60_000)])
def test_a_huge_view_is_refused_before_it_is_copied(kind, shape):
    view = np.broadcast_to(np.zeros((1,) * len(shape), kind), shape)  # one value in memory
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableImage, match="60000 x 60000 pixels, more than 64,000,000"):
            load_image(view)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("given", [None, 7, [1, 2], {"a": 1}, b"", b"hello", "", "gone\0"])
def test_what_is_no_picture_is_one_line(given):
    with pytest.raises(UnreadableImage) as error:
        load_image(given)
    assert len(str(error.value).splitlines()) == 1


def test_the_same_picture_by_every_way(tmp_path):
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    for given in (path, str(path), data, bytearray(data), memoryview(data), noise):
        assert np.array_equal(np.asarray(load_image(given)), noise)
    with Image.open(path) as opened:
        assert np.array_equal(np.asarray(load_image(opened)), noise)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "JPEG"])
@pytest.mark.parametrize("name", ["a", "a.jpg"])
def test_every_format_is_read_whatever_its_suffix(tmp_path, kind, name):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).save(buffer, kind)
    (tmp_path / name).write_bytes(buffer.getvalue())
    assert check_image(tmp_path / name) == []
    off = np.abs(np.asarray(load_image(tmp_path / name), int) - (200, 100, 50)).max()
    assert off <= (12 if kind in ("JPEG", "AVIF", "WEBP") else 0)


def test_pictures_of_a_folder_are_known_by_their_suffixes():
    assert {".jpg", ".jpeg", ".mpo", ".png", ".webp", ".avif", ".gif", ".tif"} <= SUFFIXES
    assert not {".heic", ".jxl", ".txt", ".svg", ".pdf", ".eps"} & SUFFIXES


@pytest.mark.parametrize("kind", ["TGA", "PCX", "ICO", "EPS", "PPM", "PDF"])
def test_other_formats_are_refused_with_the_list(tmp_path, kind):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", kind)
    with pytest.raises(UnreadableImage, match="expected a whole JPEG, PNG, WebP, AVIF, GIF"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1"])
def test_heic_is_told_by_its_name(brand):
    data = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(200)
    with pytest.raises(UnreadableImage, match="no decoder for HEIC is installed; convert it to"):
        load_image(data)


def test_the_reported_formats(shared):
    for name, size in {
        "b.avif": (180, 120),
        "iphone_mpo.jpg": (180, 120),
        "exif6.jpg": (120, 180),
    }.items():
        assert load_image(shared / "reports/formats" / name).size == size
    with pytest.raises(UnreadableImage, match="HEIC"):
        load_image(shared / "reports/formats/d.HEIC")


def test_a_decoder_that_fails_is_a_damaged_image(tmp_path):
    """Exif that cannot be read at all is ignored, and said."""
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + b"II*\0" + b"\xff" * 30)
    assert load_image(tmp_path / "a.jpg").size == (4, 2)
