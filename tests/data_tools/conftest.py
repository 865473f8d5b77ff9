from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def picture():
    """Return a function that writes a small valid JPEG and returns its path."""

    def write(path: Path, colour: tuple[int, int, int] = (200, 40, 90)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16), colour).save(path, "JPEG")
        return path

    return write


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real reference data, or skip where there is none."""
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    root = Path(os.environ.get("EMOSYM_SHARED", beside)) / "data"
    if not root.is_dir():
        pytest.skip("no shared/data folder beside the repository")
    return root
