from __future__ import annotations

from pathlib import Path

import pytest

from model_zoo.decoders.loading import save_decoder
from tests.model_zoo import make


@pytest.fixture(scope="module", params=make.DECODERS)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def saved(family, tmp_path_factory) -> Path:
    """Return the folder of a family's decoder. Do not change it."""
    folder = tmp_path_factory.mktemp("decoder") / family
    save_decoder(*make.decoder(family), folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """Return a copy of the folder that may be changed."""
    copied = tmp_path / "decoder"
    for path in saved.rglob("*"):
        if path.is_file():
            target = copied / path.relative_to(saved)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return copied
