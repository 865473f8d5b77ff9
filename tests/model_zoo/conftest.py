from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_zoo import zoo
from tests.model_zoo import make


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return zoo.save(make.tiny(), tmp_path_factory.mktemp("zoo") / "model")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """Return a copy of the saved model that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))
