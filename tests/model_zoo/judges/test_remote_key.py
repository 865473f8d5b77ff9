"""The key of a judge's server, and the addresses that it may have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emosym.errors import UserError
from emosym.rl.scorers import JudgeSpec
from model_zoo.judges import chat_client
from model_zoo.judges.registry import build_judge
from model_zoo.judges.remote import RemoteModel
from tests.model_zoo import chat_server
from tests.model_zoo.judges.test_remote import BLUE, RED, good, in_turn, remote, status


def give_key(monkeypatch, url: str | None, key: str = "sk-secret") -> None:
    """Set the key and the URL that it is for."""
    monkeypatch.setenv(chat_client.KEY, key)
    if url is None:
        monkeypatch.delenv(chat_client.KEY_URL, raising=False)
    else:
        monkeypatch.setenv(chat_client.KEY_URL, url)


def test_the_key_is_sent_and_never_shown(monkeypatch):
    with chat_server.serving(in_turn(good, status(401, b"wrong key sk-secret here"))) as server:
        give_key(monkeypatch, server.url + "/", "sk-secret\n")
        model = remote(server)
        model.understand([RED])
        assert server.headers[0]["authorization"] == "Bearer sk-secret"
        with pytest.raises(UserError, match=r"HTTP 401 wrong key \*\*\* here.*EMOSYM_JUDGE_KEY"):
            model.understand([BLUE])
        assert len(server.requests) == 2
        monkeypatch.setenv(chat_client.KEY, "sk-gehéim")
        with pytest.raises(UserError, match=r"^the key in EMOSYM_JUDGE_KEY has .* cannot hold$"):
            remote(server)


def test_the_key_is_not_for_a_server_that_only_a_configuration_names(monkeypatch):
    with chat_server.serving(good) as server:
        give_key(monkeypatch, None)
        with pytest.raises(UserError) as error:
            build_judge("http", JudgeSpec(path=server.url, model="eye"))
        assert str(error.value) == (
            f"the key in EMOSYM_JUDGE_KEY is not sent to the judge at {server.url}; got no"
            " EMOSYM_JUDGE_URL; expected the URL of this judge there; if you trust this server"
            f" with the key, set EMOSYM_JUDGE_URL={server.url}; else unset EMOSYM_JUDGE_KEY"
        )
        assert server.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v1",  # in clear text
        "https://api.example.com:8443/v1",
        "https://api.example.com/proxy/v1",
        "https://api.example.com.evil.org/v1",
        "https://api.example.com@evil.org/v1",
        "https://api.example.com\\@evil.org/v1",
        "https://evil.org/v1",
        "https://api.example.co\u043c/v1",  # a Cyrillic letter
    ],
)
def test_the_key_is_for_one_address(monkeypatch, url):
    give_key(monkeypatch, "https://API.example.com:443/v1")
    RemoteModel("https://api.example.com/v1/", "eye")
    with pytest.raises(UserError, match=r"is not sent to the judge|^the URL of a judge") as error:
        RemoteModel(url, "eye")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("named", ["api.example.com", "https://me:sk-secret@api.example.com/v1"])
def test_an_address_of_the_key_that_is_none(monkeypatch, named):
    give_key(monkeypatch, named)
    with pytest.raises(UserError, match=r"^the URL in EMOSYM_JUDGE_URL is not") as error:
        RemoteModel("https://api.example.com/v1", "eye")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_no_redirect_is_followed(monkeypatch, code):
    with chat_server.serving(good) as thief:
        moved = status(code, b"", Location=f"{thief.url}/chat/completions")
        with chat_server.serving(moved) as server:
            give_key(monkeypatch, server.url)
            with pytest.raises(
                UserError, match=rf"HTTP {code} to {thief.url}.*redirects are not followed"
            ):
                remote(server).understand([RED])
            assert server.headers[0]["authorization"] == "Bearer sk-secret"
        assert thief.requests == []


@pytest.mark.parametrize(
    "url",
    ["ftp://host/v1", "file:///etc/passwd", "host/v1", "", "http://", "http://host:99999/v1",
     "http://[::1/v1", "http://me:sk-secret@host/v1", "https://host/v1?key=sk-secret",
     "http://host/v1#a"],
)  # fmt: skip
def test_urls_that_are_refused(url):
    with pytest.raises(UserError, match=r"^the URL of a judge") as error:
        RemoteModel(url, "eye")
    assert "secret" not in str(error.value)


def test_a_slash_at_the_end_changes_nothing():
    with chat_server.serving(good) as server:
        RemoteModel(server.url + "/", "eye").understand([RED])
    assert server.paths == ["/v1/chat/completions"]


def test_the_cache_holds_no_key(monkeypatch, tmp_path):
    with chat_server.serving(good) as server:
        give_key(monkeypatch, server.url)
        remote(server, cache=tmp_path).understand([RED])
    (file,) = tmp_path.rglob("*.json")
    held = json.loads(file.read_text())
    assert sorted(held) == ["answer", "images", "max_tokens", "model", "temperature", "text"]
    assert "secret" not in Path(file).read_text()
