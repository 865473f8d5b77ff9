"""Image files: large batches read in threads, and fingerprints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emosym.errors import UserError
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
        with pytest.raises(UserError, match=r"^unreadable image"):
            bank.add([candidate(number, image=data) for number, data in enumerate(broken)])
        assert (bank.version, bank.verify()) == (0, [])
        bank.add([candidate(number, image=data) for number, data in enumerate(LARGE)])
        assert [bank.image_path(entry).read_bytes() for entry in bank.entries()] == LARGE
    assert len(pools) == 2


def test_fingerprints_by_hand():
    """A ramp to the right is darker than its right everywhere; brightness does not matter."""
    ramp = np.tile(np.arange(0, 180, 10, np.uint8), (16, 1))
    assert fingerprint(Image.fromarray(ramp)) == -1  # 64 ones
    assert fingerprint(Image.fromarray(ramp[:, ::-1].copy())) == 0
    ramp[8:] = 7
    half = fingerprint(Image.fromarray(ramp))
    assert half == fingerprint(Image.fromarray(ramp + 40)) == -(2**32)
