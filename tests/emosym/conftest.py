from __future__ import annotations

import pytest

from emosym.models.model import EmoSym
from tests.model_zoo import make


@pytest.fixture(scope="session")
def tiny() -> EmoSym:
    """Return emosym-tiny with random weights. Shared: copy it before changing it."""
    return make.tiny()
