"""Colours are those of sRGB, whatever profile a picture carries; transparency shows white."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from emosym.pictures.loading import ignored, load_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(given) -> np.ndarray:
    return np.asarray(load_image(given), int)


# Profiles: made by hand, because none is installed.

D50 = np.array([0.9642, 1.0, 0.8249])
D65 = np.array([0.9505, 1.0, 1.0891])
PRIMARIES = {  # xy of red, green and blue; gamma; white
    "sRGB": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), None, D65),
    "Display P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), None, D65),
    "Adobe RGB": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), 563 / 256, D65),
    "ProPhoto": ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), 1.8, D50),
}
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def to_xyz(name: str) -> np.ndarray:
    """Return the matrix from linear RGB to XYZ at D50. Ref: Lindbloom, RGB/XYZ matrices."""
    *corners, _, white = PRIMARIES[name]
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in corners]).T
    matrix = columns * np.linalg.solve(columns, white)
    scale = np.diag((BRADFORD @ D50) / (BRADFORD @ white))
    return np.linalg.inv(BRADFORD) @ scale @ BRADFORD @ matrix


def decode(levels: np.ndarray, gamma: float | None) -> np.ndarray:
    share = levels / 255
    if gamma is not None:
        return share**gamma
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def encode(linear: np.ndarray, gamma: float | None) -> np.ndarray:
    linear = linear.clip(0, 1)
    if gamma is None:
        share = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    else:
        share = linear ** (1 / gamma)
    return np.rint(share * 255)


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def icc(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    """Return an ICC profile of version 2.1 for a display."""
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": b"XYZ " + bytes(4) + fixed(*D50),
        **tags,
    }
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = bytes(4) + b"lcms" + bytes.fromhex("02100000") + b"mntr" + space + pcs
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(*D50)
    header += bytes(128 - len(header))
    whole = header + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def curve(gamma: float | None) -> bytes:
    """Return a tone curve: a power, or a table of sRGB's."""
    if gamma is not None:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    table = np.rint(decode(np.linspace(0, 255, 1024), None) * 65535).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(table)) + table.tobytes()


def rgb_profile(name: str) -> bytes:
    matrix, tone = to_xyz(name), curve(PRIMARIES[name][3])
    colorants = zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)
    tags = {tag: b"XYZ " + bytes(4) + fixed(*column) for tag, column in colorants}
    return icc(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tone))


def in_space(levels: np.ndarray, name: str) -> np.ndarray:
    """Return sRGB levels as levels of another space, of the same colours."""
    xyz = decode(levels.astype(float), None) @ to_xyz("sRGB").T
    return encode(xyz @ np.linalg.inv(to_xyz(name)).T, PRIMARIES[name][3]).astype(np.uint8)


MUTED = (64 + NOISE // 2).astype(np.uint8)
"""Colours inside all spaces, without the darkest, where 8 bits of a power curve are coarse."""


@pytest.mark.parametrize("name", ["Display P3", "Adobe RGB", "ProPhoto"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF"])
def test_a_wide_profile_is_converted(name, kind):
    stored = in_space(MUTED, name)
    lossless = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    data = file_of(
        Image.fromarray(stored), kind, icc_profile=rgb_profile(name), **lossless.get(kind, {})
    )
    off = np.abs(pixels_of(data) - MUTED)
    assert np.abs(stored.astype(int) - MUTED).max() > 15
    assert off.mean() < 1.5 if kind == "AVIF" else off.max() <= 2  # AVIF loses a little
    with Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(pixels_of(opened), pixels_of(data))


def in_jpeg_2000(image: Image.Image, profile: bytes, method: int) -> bytes:
    """Return a JPEG 2000 file whose colour box holds a profile instead of the number of sRGB."""
    data = file_of(image, "JPEG2000", irreversible=False)
    header, colr = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    (size,), (old,) = (struct.unpack_from(">I", data, at) for at in (header, colr))
    box = struct.pack(">I", 11 + len(profile)) + b"colr" + bytes([method, 0, 0]) + profile
    size = struct.pack(">I", size - old + len(box))
    return data[:header] + size + data[header + 4 : colr] + box + data[colr + old :]


@pytest.mark.parametrize("method", [2, 3])
def test_the_profile_of_a_jpeg_2000_file_is_converted(method):
    stored = Image.fromarray(in_space(MUTED, "Display P3"))
    data = in_jpeg_2000(stored, rgb_profile("Display P3"), method)
    assert np.abs(pixels_of(data) - MUTED).max() <= 2
    with Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(pixels_of(opened), pixels_of(data))


def test_a_damaged_profile_of_a_jpeg_2000_file_is_named():
    loaded = load_image(in_jpeg_2000(Image.fromarray(NOISE), b"junk" * 40, 2))
    assert np.array_equal(np.asarray(loaded), NOISE)
    assert "its colour profile cannot be used" in ignored(loaded)[0]


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
def test_a_jpeg_2000_file_without_a_profile_is_srgb(tmp_path, suffix):
    Image.fromarray(NOISE).save(tmp_path / f"a{suffix}", irreversible=False)
    assert np.array_equal(pixels_of(tmp_path / f"a{suffix}"), NOISE)


def test_a_phone_s_red_by_hand():
    """Display P3 (234, 51, 35) is sRGB (255, 0, 0), as its published conversion says."""
    red = Image.new("RGB", (4, 4), (234, 51, 35))
    loaded = load_image(file_of(red, icc_profile=rgb_profile("Display P3")))
    assert np.abs(np.subtract(loaded.getpixel((0, 0)), (255, 0, 0))).max() <= 4


@pytest.mark.parametrize("profile", [SRGB, rgb_profile("sRGB"), None])
def test_srgb_pixels_are_not_touched(profile):
    options = {} if profile is None else {"icc_profile": profile}
    assert np.array_equal(pixels_of(file_of(Image.fromarray(NOISE), **options)), NOISE)


@pytest.mark.parametrize(
    "profile",
    [
        b"junk" * 40,
        SRGB[:200],
        SRGB[:-400],
        b"\0" * 128,
        SRGB.replace(b"RGB XYZ ", b"CMYKXYZ "),
        SRGB.replace(b"mntrRGB ", b"linkRGB "),
        icc(b"GRAY", {b"kTRC": curve(2.2)}),
        icc(b"RGB ", {}),
    ],
)
def test_a_profile_that_cannot_be_used_is_ignored_and_said(profile):
    loaded = load_image(file_of(Image.fromarray(NOISE), icc_profile=profile))
    assert np.array_equal(np.asarray(loaded), NOISE)
    (reason,) = ignored(loaded)
    assert reason.startswith("its colour profile cannot be used: ")
    assert load_image(loaded) is loaded


def test_grey_profiles():
    """A gamma of 1 makes 128 of 255 the sRGB level 188; of grey pixels in RGB too."""
    linear = icc(b"GRAY", {b"kTRC": curve(1.0)})
    grey = Image.new("L", (4, 4), 128)
    for image in (
        grey,
        grey.convert("RGB"),
        Image.merge("LA", (grey, Image.new("L", (4, 4), 255))),
    ):
        loaded = load_image(file_of(image, icc_profile=linear))
        assert loaded.getpixel((0, 0)) == (188, 188, 188)
        assert ignored(loaded) == []
    sixteen = Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
    assert load_image(file_of(sixteen, icc_profile=linear)).getpixel((0, 0)) == (188, 188, 188)


def test_a_profile_for_rgb_on_grey_pixels():
    levels = np.arange(64, 192, dtype=np.uint8).reshape(8, 16)
    data = file_of(Image.fromarray(levels), icc_profile=rgb_profile("ProPhoto"))
    expected = encode(decode(levels.astype(float), 1.8), None)
    assert np.abs(pixels_of(data)[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile(kind):
    for ink, colour in {(0, 255, 255, 0): (255, 0, 0), (0, 0, 0, 255): (0, 0, 0)}.items():
        options = {"quality": 100} if kind == "JPEG" else {}
        data = file_of(Image.new("CMYK", (8, 8), ink), kind, **options)
        assert np.abs(pixels_of(data) - colour).max() <= 2


def cmyk_profile() -> bytes:
    """Return a printer's profile whose every ink is black: L = 100 x (1 - the largest ink)."""
    grid = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
    light = np.rint((1 - grid.max(-1)) * 255).astype(np.uint8)
    lab = np.stack([light, np.full_like(light, 128), np.full_like(light, 128)], -1)
    ramp = bytes(range(256))
    matrix = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + lab.tobytes() + ramp * 3
    profile = icc(b"CMYK", {b"A2B0": table, b"A2B1": table}, pcs=b"Lab ")
    return profile.replace(b"mntrCMYK", b"prtrCMYK")


def test_cmyk_with_its_profile():
    """Cyan by Pillow's formula is (0, 255, 255); this printer's cyan is black."""
    for ink, grey in {(0, 0, 0, 0): 255, (255, 0, 0, 0): 0}.items():
        data = file_of(Image.new("CMYK", (8, 8), ink), "TIFF", icc_profile=cmyk_profile())
        assert np.abs(pixels_of(data) - grey).max() <= 1
        assert ignored(load_image(data)) == []


def test_lab_is_converted():
    """L 50 without colour is sRGB's 119."""
    for given in (lab := Image.new("LAB", (2, 2), (128, 128, 128)), file_of(lab, "TIFF")):
        assert np.abs(pixels_of(given) - 119).max() <= 1


def test_the_reported_pictures(shared):
    for number in "01":
        truth = pixels_of(shared / f"reports/icc/srgb_{number}.png")
        for name in ("p3", "adobergb"):
            path = shared / f"reports/icc/{name}_{number}.png"
            with Image.open(path) as raw:
                assert np.abs(np.asarray(raw, int) - truth).max() > 30
            assert np.abs(pixels_of(path) - truth).max() <= 2
