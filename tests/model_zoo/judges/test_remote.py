from __future__ import annotations

import asyncio
import email.utils
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.records import ImageRequest, Question
from emosym.rl.scorers import JudgeSpec
from model_zoo.judges import chat_client
from model_zoo.judges.registry import build_judge
from model_zoo.judges.remote import ANSWER_TOKENS, RemoteModel
from tests.model_zoo import chat_server, make

GOOD = "<think>dark</think><answer>Emotion: fear; Valence: -1.5; Arousal: 2.0</answer>"
RED, BLUE = (Image.new("RGB", (6, 4), colour) for colour in ("red", "blue"))


@pytest.fixture(autouse=True)
def here_and_without_a_key(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv(chat_client.KEY, raising=False)


def remote(server, **options) -> RemoteModel:
    return RemoteModel(server.url, "eye", **{"backoff": 0.0, "timeout": 100.0, **options})


def good(handler, body):
    handler.say(GOOD)


def in_turn(*steps):
    """Return a script of one step after the other; the last one stays."""
    left, lock = list(steps), threading.Lock()

    def script(handler, body):
        with lock:
            step = left.pop(0) if len(left) > 1 else left[0]
        step(handler, body)

    return script


def status(code, body=b"no", **headers):
    return lambda handler, _: handler.send(code, body, **headers)


def hang(handler, body):
    handler.server.closing.wait(60)


# --- requests and answers ---------------------------------------------------------------------


def test_it_understands_images():
    with chat_server.serving(good) as server:
        (found,) = remote(server).understand([RED])
        (silent,) = remote(server).understand([RED], answer=False)
    assert (found.emotion, found.affect, found.text) == ("fear", Affect(-1.5, 2.0), GOOD)
    assert found.probabilities == {label: float(label == "fear") for label in MIKELS8}
    assert silent.answer == ""
    assert silent.affect.valence == -1.5
    body = server.requests[0]
    assert server.paths[0] == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("eye", 0, ANSWER_TOKENS)
    prompt = chat_server.text(body)
    assert prompt.startswith(
        "Which emotion does this image evoke? Give valence and arousal from -3"
    )
    assert all(label in prompt for label in MIKELS8)
    assert "<answer>Emotion: word; Valence: x.x; Arousal: x.x</answer>" in prompt
    (sent,) = chat_server.pictures(body)
    assert sent.tobytes() == RED.tobytes()
    assert "authorization" not in server.headers[0]


def test_it_sends_transparent_images_on_white():
    """Whatever colour is hidden; a question's images too."""
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    question = Question(id="a", task="perception", images=(hidden,), split="test", text="Why?")
    with chat_server.serving(good) as server:
        remote(server).understand([hidden])
        remote(server).answer([question])
    sent = [chat_server.pictures(body) for body in server.requests]
    assert [one.getcolors() for [one] in sent] == [[(16, (255, 255, 255))]] * 2


def test_reasoning_that_the_server_keeps_to_itself_is_not_missed():
    bare = GOOD.partition("</think>")[2]
    with chat_server.serving(lambda handler, _: handler.say(bare)) as server:
        assert remote(server).understand([RED])[0].emotion == "fear"


def by_width(handler, body):
    """Say more of narrow images, later: answers come in another order than questions."""
    (image,) = chat_server.pictures(body)
    time.sleep(0.002 * (80 - image.width))
    handler.say(f"<answer>Emotion: awe; Valence: 0.{image.width}; Arousal: 0</answer>")


def test_many_images_keep_their_order():
    images = [Image.new("RGB", (10 + place, 3)) for place in range(70)]
    with chat_server.serving(by_width) as server:
        found = remote(server).understand(images)
    assert [u.affect.valence for u in found] == pytest.approx([(10 + p) / 100 for p in range(70)])
    assert len(server.requests) == 70


def test_no_more_are_under_way_than_allowed():
    now, most, lock = [0], [0], threading.Lock()

    def count(handler, body):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        handler.say(GOOD)

    with chat_server.serving(count) as server:
        remote(server).understand([Image.new("RGB", (1 + place, 3)) for place in range(30)])
    assert 1 < most[0] <= chat_client.PARALLEL


def test_questions_are_answered_in_words(tmp_path):
    RED.save(tmp_path / "red.png")
    BLUE.save(tmp_path / "blue.png")
    pair = (tmp_path / "red.png", tmp_path / "blue.png")
    questions = [
        Question(id="a", task="perception", images=pair, split="test", text="Which is warmer?"),
        Question(id="b", task="perception", images=pair[:1], split="test", text="Why?"),
    ]
    with chat_server.serving(
        lambda handler, body: handler.say(f"{chat_server.text(body)} {body['max_tokens']}")
    ) as server:
        assert remote(server).answer(questions, max_tokens=7) == ["Which is warmer? 7", "Why? 7"]
        assert remote(server).answer([]) == []
    (body,) = [body for body in server.requests if "warmer" in chat_server.text(body)]
    assert [im.tobytes() for im in chat_server.pictures(body)] == [RED.tobytes(), BLUE.tobytes()]
    with pytest.raises(UserError, match="cannot read image"):
        remote(server).answer([Question(**{**BARE, "images": (tmp_path / "no.png",)})])


BARE = {"id": "c", "task": "affect", "images": (), "split": "test", "text": "?"}


def test_it_works_where_an_event_loop_runs_already():
    async def notebook(server):
        return remote(server).understand([RED])

    with chat_server.serving(good) as server:
        assert asyncio.run(notebook(server))[0].emotion == "fear"


def test_it_scores_images_by_name():
    requests = [ImageRequest(affect=Affect(-1.5, -1)), ImageRequest(affect=Affect(3, 2))]
    with chat_server.serving(good) as server:
        scorer = build_judge("http", JudgeSpec(path=server.url, model="eye"))
        assert scorer([RED, BLUE], requests) == pytest.approx([1 - 3 / 12, 1 - 4.5 / 12])


# --- the cache ----------------------------------------------------------------------------------


def test_an_image_is_asked_about_once(tmp_path):
    with chat_server.serving(good) as server:
        first = remote(server, cache=tmp_path / "c").understand([RED, BLUE, RED.copy()])
        assert len(server.requests) == 2
        again = remote(server, cache=tmp_path / "c").understand([BLUE, RED])
        assert len(server.requests) == 2
        remote(server, cache=tmp_path / "other").understand([RED])
        assert len(server.requests) == 3
        RemoteModel(server.url, "ear", cache=tmp_path / "c").understand([RED])
        assert len(server.requests) == 4
        remote(server, cache=tmp_path / "c").answer([Question(**{**BARE, "text": "Why?"})])
        assert len(server.requests) == 5
        turned = RED.transpose(Image.Transpose.ROTATE_90)  # the same bytes, of another width
        assert turned.tobytes() == RED.tobytes()
        remote(server, cache=tmp_path / "c").understand([turned])
        assert len(server.requests) == 6
    assert first[:2] == again[::-1]
    RemoteModel("http://127.0.0.1:9/v1", "eye", cache=tmp_path / "c").understand([RED, BLUE])
    assert not list(tmp_path.rglob("*.partial"))


def test_a_file_and_its_picture_are_the_same_question(tmp_path):
    RED.save(tmp_path / "red.png")
    with chat_server.serving(good) as server:
        model = remote(server, cache=tmp_path / "c")
        model.understand([tmp_path / "red.png"])
        model.understand([RED])
        assert len(server.requests) == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"answer": "<answer>Emotion: awe</answer>"}'])
def test_a_damaged_entry_is_asked_again(tmp_path, damage):
    with chat_server.serving(good) as server:
        remote(server, cache=tmp_path).understand([RED])
        (file,) = tmp_path.rglob("*.json")
        sound = file.read_text()
        file.write_text(damage)
        assert remote(server, cache=tmp_path).understand([RED])[0].emotion == "fear"
        assert len(server.requests) == 2
        assert file.read_text() == sound


def test_what_cannot_be_read_is_not_kept(tmp_path):
    with chat_server.serving(in_turn(lambda h, _: h.say("I like it"), good)) as server:
        with pytest.raises(UserError):
            remote(server, cache=tmp_path).understand([RED])
        assert list(tmp_path.rglob("*.*")) == []
        assert remote(server, cache=tmp_path).understand([RED])[0].emotion == "fear"


def test_what_was_answered_before_a_failure_stays(tmp_path):
    def first_red(handler, body):
        (image,) = chat_server.pictures(body)
        if image.tobytes() == RED.tobytes():
            return handler.say(GOOD)
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        return handler.send(400, b"no blue")

    with chat_server.serving(first_red) as server:
        with pytest.raises(UserError, match="no blue"):
            remote(server, cache=tmp_path).understand([BLUE, RED])
        assert remote(server, cache=tmp_path).understand([RED])[0].emotion == "fear"
        assert len(server.requests) == 2


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"answer cache .*file/c cannot be written"):
        RemoteModel("http://127.0.0.1:9/v1", "eye", cache=tmp_path / "file" / "c")


# --- a server that fails ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        status(500),
        status(503, Retry_After="0"),
        status(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
        status(429, Retry_After="soon"),
        lambda handler, _: setattr(handler, "close_connection", True),  # without a word
    ],
)
def test_it_asks_again(failure):
    with chat_server.serving(in_turn(failure, failure, good)) as server:
        assert remote(server, retries=2).understand([RED])[0].emotion == "fear"
        assert len(server.requests) == 3
        assert server.requests[0] == server.requests[2]


def test_it_gives_up():
    with chat_server.serving(status(502, b"bad\x1b[31m  gateway")) as server:
        expected = rf"^the judge at {server.url} does not answer; got HTTP 502 bad \[31m gateway"
        with pytest.raises(UserError, match=rf"{expected} \(attempts: 3\); check that the server"):
            remote(server, retries=2).understand([RED])
        assert len(server.requests) == 3


def test_a_hang_ends():
    with chat_server.serving(in_turn(hang, good)) as server:
        # A busy machine may need more than one attempt after the one that hangs.
        assert remote(server, timeout=0.5, retries=99).understand([RED])[0].emotion == "fear"
        assert len(server.requests) > 1
    with chat_server.serving(hang) as server:
        with pytest.raises(UserError, match=r"does not answer; got no answer in 0.3 s"):
            remote(server, timeout=0.3, retries=1).understand([RED])
        assert len(server.requests) == 2


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_drip_is_a_hang(start):
    """A byte now and then, in headers or body: no single wait is long."""

    def drip(handler, body):
        handler.wfile.write(start)
        while not handler.server.closing.wait(0.02):
            handler.wfile.write(b"x")

    with (
        chat_server.serving(drip) as server,
        pytest.raises(UserError, match=r"got no answer in 0.5 s"),
    ):
        remote(server, timeout=0.5, retries=0).understand([RED])


def test_waits(monkeypatch):
    """They double, are as long as the server asks for, and never longer than the bound."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(chat_client.anyio, "sleep", sleep)
    later = email.utils.formatdate(time.time() + 3600, usegmt=True)
    steps = [
        status(500),
        status(500),
        status(429, Retry_After="7"),
        status(429, Retry_After="1"),
        status(503, Retry_After="86400"),
        status(503, Retry_After=later),
        status(500),
        status(500),
        good,
    ]
    with chat_server.serving(in_turn(*steps)) as server:
        remote(server, backoff=1.0, retries=8).understand([RED])
    assert waits == [1, 2, 7, 8, 60, 60, 60, 60]


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(UserError, match=rf"^the judge at {url} does not answer; got .*attempts: 2"):
        RemoteModel(url, "eye", retries=1, backoff=0.0).understand([RED])


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            status(200, b"<html>hello</html>"),
            r"is not a chat completion; got '<html>hello.*not JSON",
        ),
        (status(200, b"\xff\xfe"), "is not a chat completion.*not UTF-8"),
        (status(200, b"[" * 5000), "is not a chat completion.*nested too deeply"),
        (status(200, b"{}"), r"no choices\[0\].message.content"),
        (status(200, b'{"choices": []}'), r"no choices\[0\].message.content"),
        (status(200, b'{"choices": 3}'), r"no choices\[0\].message.content"),
        (status(200, b"x", Content_Encoding="gzip"), "compresses its responses; got gzip"),
        (status(404, b'{"error": "no model eye"}'), "HTTP 404 .*no model eye.*a model named 'eye'"),
        (status(400, b"images are not taken"), "the request; got HTTP 400 images are not taken"),
        (status(200, b'{"choices": [{"message": "fear"}]}'), "no choices"),
    ],
)
def test_another_response_stops_at_once(script, problem):
    with chat_server.serving(script) as server:
        with pytest.raises(UserError, match=problem):
            remote(server).understand([RED])
        assert len(server.requests) == 1


def test_an_answer_without_end_is_not_read_to_its_end():
    sent = [0]

    def endless(handler, body):
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.closing.is_set() and sent[0] < 200 * 2**20:
            sent[0] += handler.wfile.write(b" " * 65536)

    with (
        chat_server.serving(endless) as server,
        pytest.raises(UserError, match="is too large; expected at most 1,048,576 bytes"),
    ):
        remote(server).understand([RED])
    assert sent[0] < 100 * 2**20


def test_an_image_too_large_to_send(monkeypatch):
    monkeypatch.setattr(chat_client, "MAX_IMAGE_BYTES", 1000)
    with (
        chat_server.serving(good) as server,
        pytest.raises(UserError, match=r"too large to be sent.*64 x 64 pixels"),
    ):
        remote(server).understand([make.picture()])
    assert server.requests == []


# --- the key ------------------------------------------------------------------------------------


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
