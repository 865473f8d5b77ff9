from __future__ import annotations

import pytest

from model_zoo.judges import chat_client


@pytest.fixture(autouse=True)
def here_and_without_a_key(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv(chat_client.KEY, raising=False)
