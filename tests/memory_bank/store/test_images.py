"""Image files: large batches read in threads, and fingerprints."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emosym.errors import UserError
from emosym.pictures.loading import load_image
from memory_bank import MemoryBank, fingerprint
from memory_bank.store import images
from memory_bank.store.images import read_image, read_images
from tests.memory_bank.make import DIM, MODEL, candidate, picture

LARGE = [picture(number, side=128) for number in range(5)]


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each time that several files are read at once."""
    made: list[int] = []
    real = images.ThreadPoolExecutor
    monkeypatch.setattr(images, "ThreadPoolExecutor", lambda *of: made.append(1) or real(*of))
    return made


def test_large_files_are_read_at_once_each_as_if_alone(pools: list[int], tmp_path: Path):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, data in zip(paths, LARGE, strict=True):
        path.write_bytes(data)
    alone = [read_image(data) for data in LARGE]
    assert len({file.sha256 for file in alone}) == 5
    assert read_images(LARGE) == read_images(paths) == alone
    assert len(pools) == 2
    small = [picture(number) for number in range(5)]
    assert read_images(small) == [read_image(data) for data in small]
    assert read_images([]) == []
    assert len(pools) == 2


@pytest.mark.parametrize("name", ["gone.png", "a" * 300 + ".png", "nul\0.png", "."])
def test_a_path_that_cannot_be_asked_is_told_as_alone(name: str, tmp_path: Path):
    with pytest.raises(UserError) as alone:
        read_image(tmp_path / name)
    with pytest.raises(UserError) as among:
        read_images([*LARGE, tmp_path / name])
    assert str(among.value) == str(alone.value)


def test_one_damaged_file_of_many_leaves_the_bank_as_it_was(pools: list[int], tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        broken = [*LARGE[:3], LARGE[3][:-40], LARGE[4]]
        with pytest.raises(UserError, match=r"^cannot read an image"):
            bank.add([candidate(number, image=data) for number, data in enumerate(broken)])
        assert (bank.version, bank.verify()) == (0, [])
        bank.add([candidate(number, image=data) for number, data in enumerate(LARGE)])
        assert [bank.image_path(entry).read_bytes() for entry in bank.entries()] == LARGE
    assert len(pools) == 2


def file_of(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_png_and_jpeg_keep_their_bytes_and_the_rest_becomes_png(kind: str, tmp_path: Path):
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8))
    options = {"save_all": True, "append_images": [image]} if kind == "MPO" else {}
    data = file_of(image, kind, **options)
    (tmp_path / "a").write_bytes(data)
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([candidate(0, image=tmp_path / "a")])
        assert len(bank.add([candidate(1, image=data)]).refused) == 1
        (entry,) = bank.entries()
        stored = bank.image_path(entry)
        assert entry.suffix == ("jpg" if kind in ("JPEG", "MPO") else "png")
        if kind in ("PNG", "JPEG", "MPO"):
            assert stored.read_bytes() == data
        assert np.array_equal(np.asarray(load_image(stored)), np.asarray(load_image(data)))
        assert bank.verify() == []


def test_an_image_in_memory_is_stored_as_it_is_read():
    """On white, in sRGB, without metadata; its hidden colours do not make another image."""
    red, blue = (Image.new("RGBA", (4, 4), (*colour, 0)) for colour in ((255, 0, 0), (0, 0, 255)))
    assert read_image(red) == read_image(blue) == read_image(Image.new("RGB", (4, 4), "white"))


def test_fingerprints_by_hand():
    """A ramp to the right is darker than its right everywhere; brightness does not matter."""
    ramp = np.tile(np.arange(0, 180, 10, np.uint8), (16, 1))
    assert fingerprint(Image.fromarray(ramp)) == -1  # 64 ones
    assert fingerprint(Image.fromarray(ramp[:, ::-1].copy())) == 0
    ramp[8:] = 7
    half = fingerprint(Image.fromarray(ramp))
    assert half == fingerprint(Image.fromarray(ramp + 40)) == -(2**32)
