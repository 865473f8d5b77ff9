from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("emosym", deadline=None)  # a loaded machine is slow
settings.load_profile("emosym")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real reference data, or skip where there is none."""
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    root = Path(os.environ.get("EMOSYM_SHARED", beside)) / "data"
    if not root.is_dir():
        pytest.skip("no shared/data folder beside the repository")
    return root
