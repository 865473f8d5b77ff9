from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image

from data_tools.images import MAX_PIXELS, check_image, load_image
from data_tools.quarantine import Broken
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
    with pytest.raises(Broken, match="damaged"):
        check_image(truncated(tmp_path / name))
    with pytest.raises(UserError, match=rf"cannot read image .*{name}; got image is damaged"):
        load_image(tmp_path / name)


def test_a_damaged_png_checksum_is_found(tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((50, 50), 80).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(Broken, match="damaged"):
        check_image(path)


@pytest.mark.parametrize("side", [MAX_PIXELS // 5000, 20_000])
def test_a_decompression_bomb_is_not_decoded(tmp_path, side):
    with pytest.raises(Broken, match="more than 64,000,000"):
        check_image(huge_png(tmp_path / "bomb.png", side))
    with pytest.raises(UserError, match="more than 64,000,000"):
        load_image(tmp_path / "bomb.png")


def test_empty_missing_folder_and_not_an_image(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello, I am no image")
    for name, reason in {
        "empty.jpg": "file is empty",
        "text.jpg": "not an image",
        "none.jpg": "does not exist",
        ".": "folder",
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


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (8, 8)).save(tmp_path / f"a.{suffix}")
    check_image(tmp_path / f"a.{suffix}")
    assert load_image(tmp_path / f"a.{suffix}").mode == "RGB"
