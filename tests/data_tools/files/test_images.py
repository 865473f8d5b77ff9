from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_tools.files.images import MAX_PIXELS, MAX_RATIO, check_image, load_image
from data_tools.quarantine import InvalidRecord
from emosym.errors import UserError


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
    with pytest.raises(InvalidRecord, match="damaged"):
        check_image(truncated(tmp_path / name))
    with pytest.raises(UserError, match=rf"cannot read image .*{name}; got image is damaged"):
        load_image(tmp_path / name)


def test_a_damaged_png_checksum_is_found(tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((50, 50), 80).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InvalidRecord, match="damaged"):
        check_image(path)


@pytest.mark.parametrize("side", [MAX_PIXELS // 5000, 20_000])
def test_a_decompression_bomb_is_not_decoded(tmp_path, side):
    with pytest.raises(InvalidRecord, match="more than 64,000,000"):
        check_image(huge_png(tmp_path / "bomb.png", side))
    with pytest.raises(UserError, match="more than 64,000,000"):
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
        with pytest.raises(UserError, match=reason):
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
def test_an_orientation_beside_damaged_exif_is_reported(tmp_path, entry):
    """Pillow reads such EXIF, and fails to write it again without the orientation."""
    entries = sorted([(0x0112, 3, 6), entry])
    tiff = b"II*\0" + struct.pack("<IH", 8, len(entries))
    tiff += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + tiff + bytes(4))
    with pytest.raises(InvalidRecord, match="damaged"):
        check_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"cannot read image .*a\.jpg"):
        load_image(tmp_path / "a.jpg")


def test_a_picture_too_narrow_for_a_backbone_is_refused(tmp_path):
    Image.new("RGB", (MAX_RATIO, 1)).save(tmp_path / "wide.png")
    assert load_image(tmp_path / "wide.png").width == MAX_RATIO
    Image.new("RGB", (3, 3 * MAX_RATIO + 1)).save(tmp_path / "narrow.png")
    with pytest.raises(InvalidRecord, match="3 x 301 pixels, narrower than 1 : 100"):
        check_image(tmp_path / "narrow.png")
    with pytest.raises(UserError, match="narrower"):
        load_image(tmp_path / "narrow.png")


@pytest.mark.parametrize("kind", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, kind):
    levels = np.array([[0, 257, 128 * 257, 65535]])
    path = tmp_path / ("a.png" if kind == "<u2" else "a.tif")
    Image.fromarray(levels.astype(kind)).save(path)
    assert np.asarray(load_image(path))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_levels_without_a_known_white_are_refused(tmp_path, kind):
    Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / "a.tif")
    with pytest.raises(InvalidRecord, match="no defined white"):
        check_image(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (8, 8)).save(tmp_path / f"a.{suffix}")
    check_image(tmp_path / f"a.{suffix}")
    assert load_image(tmp_path / f"a.{suffix}").mode == "RGB"
