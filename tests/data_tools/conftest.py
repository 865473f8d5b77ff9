from __future__ import annotations

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
