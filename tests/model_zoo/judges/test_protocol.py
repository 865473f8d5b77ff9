"""What servers of chat completions do that is not an answer in one string."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.records import ImageRequest, Question
from emosym.rl.scorers import JudgeSpec
from model_zoo.judges import chat_client
from model_zoo.judges.registry import build_judge
from model_zoo.judges.remote import ANSWER_TOKENS, RemoteModel
from tests.model_zoo import chat_server

GOOD = "<think>dark</think><answer>Emotion: fear; Valence: -1.5; Arousal: 2.0</answer>"
IMAGES = [Image.new("RGB", (6 + width, 4), "red") for width in range(4)]
QUESTION = Question(id="a", task="perception", images=(), split="test", text="Why?")


@pytest.fixture(autouse=True)
def here_and_without_a_key(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv(chat_client.KEY, raising=False)


def remote(server, **options) -> RemoteModel:
    return RemoteModel(server.url, "eye", **{"backoff": 0.0, "timeout": 100.0, **options})


def good(handler, body):
    handler.say(GOOD)


def sending(status, body, **headers):
    return lambda handler, _: handler.send(status, json.dumps(body).encode(), **headers)


def choice(message, finish="stop"):
    """Return the script of a completion with this message."""
    return sending(200, {"choices": [{"message": message, "finish_reason": finish}]})


def first(step, then=good):
    """Return a script whose first answer is `step`, all others `then`."""
    done = []

    def script(handler, body):
        (then if done else step)(handler, body)
        done.append(1)

    return script


# --- parameters that a server does not take -----------------------------------------------------


def modern(handler, body):
    """Refuse one parameter at a time, as OpenAI's reasoning models do."""
    if "max_tokens" in body:
        why = {
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
            " 'max_completion_tokens' instead.",
            "param": "max_tokens",
            "code": "unsupported_parameter",
        }
        return handler.send(400, json.dumps({"error": why}).encode())
    if "temperature" in body:
        why = {
            "message": "Unsupported value: 'temperature' does not support 0 with this model. Only"
            " the default (1) value is supported.",
            "param": "temperature",
            "code": "unsupported_value",
        }
        return handler.send(400, json.dumps({"error": why}).encode())
    return handler.say(GOOD)


def parameters(body):
    return {key: value for key, value in body.items() if key not in ("model", "messages")}


def test_the_client_learns_what_a_server_takes():
    with chat_server.serving(modern) as server:
        model = remote(server, retries=0)
        assert model.understand(IMAGES[:1])[0].emotion == "fear"
        assert [parameters(body) for body in server.requests] == [
            {"max_tokens": ANSWER_TOKENS, "temperature": 0.0},
            {"max_completion_tokens": ANSWER_TOKENS, "temperature": 0.0},
            {"max_completion_tokens": ANSWER_TOKENS},
        ]
        assert model.understand(IMAGES)[3].emotion == "fear"  # it remembers
        assert len(server.requests) == 7
        assert all(
            parameters(body) == {"max_completion_tokens": ANSWER_TOKENS}
            for body in server.requests[3:]
        )


def test_many_requests_at_once_learn_it_too():
    with chat_server.serving(modern) as server:
        assert len(remote(server, retries=0).understand(IMAGES * 2)) == 8


def test_what_a_server_takes_can_be_set():
    with chat_server.serving(modern) as server:
        spec = JudgeSpec(path=server.url, model="eye", max_completion_tokens=900, temperature=1.0)
        judge = build_judge("http", spec)
        judge(IMAGES[:1], [ImageRequest(affect=Affect(0, 0))])
        assert [parameters(body) for body in server.requests] == [{"max_completion_tokens": 900}]
    with chat_server.serving(good) as server:
        spec = JudgeSpec(path=server.url, model="eye", max_tokens=700, temperature=0.5)
        build_judge("http", spec)(IMAGES[:1], [ImageRequest(affect=Affect(0, 0))])
        assert parameters(server.requests[0]) == {"max_tokens": 700, "temperature": 0.5}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (422, {"detail": [{"loc": ["body", "temperature"], "msg": "Extra inputs not permitted"}]}),
        (400, {"message": "does not support parameters: ['temperature']"}),
        (200, {"error": {"code": 400, "message": "temperature is not allowed"}}),
    ],
)
def test_other_words_for_it(status, body):
    with chat_server.serving(first(sending(status, body))) as server:
        assert remote(server, retries=0).understand(IMAGES[:1])[0].emotion == "fear"
        assert "temperature" not in server.requests[1]
        assert server.requests[1]["max_tokens"] == ANSWER_TOKENS


def test_a_parameter_is_given_up_once():
    """A server that always complains of it ends in an error, not in a loop."""
    body = {"error": "'max_tokens' or 'max_completion_tokens' is too large: temperature"}
    with chat_server.serving(sending(400, body)) as server:
        with pytest.raises(UserError, match="refuses the request; got HTTP 400"):
            remote(server).understand(IMAGES[:1])
        assert len(server.requests) == 2


# --- what is tried again ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        *(sending(code, {"error": "busy"}) for code in (408, 409, 425, 429, 500, 502, 529, 599)),
        sending(200, {"error": {"message": "overloaded", "type": "server_error"}}),
        sending(200, {"error": {"message": "rate limited", "code": 429}}),
        sending(200, {"error": "upstream failed"}),
        sending(200, {"object": "error", "message": "out of memory", "code": 503}),
        sending(200, {"choices": [{"error": {"code": 502, "message": "provider"}}]}),
        sending(200, {"error": {"code": "overloaded"}, "choices": []}),
    ],
)
def test_it_asks_again(failure):
    with chat_server.serving(first(failure)) as server:
        assert remote(server, retries=1).understand(IMAGES[:1])[0].emotion == "fear"
        assert len(server.requests) == 2
    with chat_server.serving(failure) as server:
        with pytest.raises(UserError, match=r"does not answer; got HTTP \d+ .*attempts: 2"):
            remote(server, retries=1).understand(IMAGES[:1])
        assert len(server.requests) == 2


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 413])
@pytest.mark.parametrize("inside", [False, True])
def test_it_does_not_ask_again(code, inside):
    body = {"error": {"message": "no", "code": code}}
    with chat_server.serving(sending(200 if inside else code, body)) as server:
        with pytest.raises(UserError, match=f"refuses the request; got HTTP {code}"):
            remote(server).understand(IMAGES[:1])
        assert len(server.requests) == 1


def test_the_wait_that_a_body_with_200_asks_for_is_kept(monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(chat_client.anyio, "sleep", sleep)
    busy = sending(200, {"error": {"code": 429}}, Retry_After="2.5")
    with chat_server.serving(first(busy)) as server:
        remote(server, backoff=1.0).understand(IMAGES[:1])
    assert waits == [2.5]


# --- content ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": GOOD}],
        [{"type": "text", "text": GOOD[:40]}, {"type": "text", "text": GOOD[40:]}],
        [{"type": "output_text", "text": GOOD}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Valence: 3"}]},
         {"type": "text", "text": GOOD}],
        [{"type": "reasoning", "text": "Valence: 3"}, {"type": "text", "text": GOOD}],
    ],
)  # fmt: skip
def test_content_in_parts(content):
    with chat_server.serving(choice({"content": content})) as server:
        (found,) = remote(server).understand(IMAGES[:1])
        assert (found.emotion, found.text) == ("fear", GOOD)


LIMIT = "the limit of tokens ended"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (choice({"content": None}), "its message has no text"),
        (choice({"content": "  "}), "its message has no text"),
        (choice({"content": []}), "its message has no text"),
        (choice({"content": ["a"]}), "its message has no text"),
        (choice({"content": None, "tool_calls": [{"id": "a"}]}), "its message has no text"),
        (choice({"content": None, "refusal": "I cannot."}), "the model refuses: I cannot."),
        (choice({"content": [{"type": "refusal", "refusal": "No."}]}), "the model refuses: No."),
        (choice({"content": "Sorry", "refusal": "No."}), "the model refuses: No."),
        (choice({"content": GOOD}, "content_filter"), "content filter withholds"),
        (
            choice({"content": None, "reasoning_content": "Well"}, "length"),
            rf"{LIMIT} it while the model was reasoning; raise max_tokens",
        ),
        (
            choice({"content": "", "reasoning": "Well"}, "length"),
            rf"{LIMIT} it while the model was reasoning; raise max_tokens",
        ),
        (
            choice({"content": [{"type": "thinking", "thinking": []}]}, "length"),
            rf"{LIMIT} it while the model was reasoning; raise max_tokens",
        ),
        (choice({"content": None}, "length"), rf"{LIMIT} it before its first word"),
        (
            choice({"content": None, "reasoning_content": "Well"}),
            "the message holds only reasoning; raise max_tokens, or switch",
        ),
        (
            choice({"reasoning_content": "Well"}, "length"),
            rf"{LIMIT} it while the model was reasoning",
        ),
    ],
)
def test_why_there_is_no_answer(script, problem):
    with chat_server.serving(script) as server:
        model = remote(server)
        for ask in (lambda: model.understand(IMAGES[:1]), lambda: model.answer([QUESTION])):
            with pytest.raises(UserError, match=problem) as error:
                ask()
            assert server.url in str(error.value)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (choice({"content": GOOD}, "length"), rf"{LIMIT} the answer.*raise max_tokens"),
        (choice({"content": GOOD[:-12]}, "length"), rf"{LIMIT} the answer"),
        (lambda h, _: h.say("fear"), "'eye' at .* not state one emotion and one valence and"),
        (
            lambda h, _: h.say("<answer>Emotion: fear; Valence: -9; Arousal: 1</answer>"),
            "does not state one valence: '<answer>",
        ),
        (lambda h, _: h.say(f"{GOOD}<answer>Emotion: awe</answer>"), "not state one emotion: "),
        (lambda h, _: h.say("x" * 1000 + "\x1b[31m"), r"xx\\x1b\[31m"),
    ],
)
def test_an_answer_that_cannot_be_read(script, problem):
    with chat_server.serving(script) as server:
        with pytest.raises(UserError, match=problem):
            remote(server).understand(IMAGES[:1])
        assert remote(server).answer([QUESTION])[0]  # free text may be cut


FILTERED = {"error": {"message": "filtered", "code": "content_filter", "status": 400}}


@pytest.mark.parametrize(
    "odd",
    [
        lambda h, _: h.say("I like it"),
        choice({"content": None, "refusal": "No."}),
        choice({"content": GOOD}, "length"),
        sending(400, FILTERED),
        sending(400, {"error": {"message": "no", "code": "content_policy_violation"}}),
    ],
)
def test_one_image_without_an_answer_leaves_the_others_their_scores(odd, tmp_path):
    def script(handler, body):
        (image,) = chat_server.pictures(body)
        (odd if image.width == 7 else good)(handler, body)

    requests = [ImageRequest(affect=Affect(-1.5, -1))] * 4
    with chat_server.serving(script) as server:
        spec = JudgeSpec(path=server.url, model="eye", cache=str(tmp_path))
        judge = build_judge("http", spec)
        scores = judge(IMAGES, requests)
        assert np.isnan(scores).tolist() == [False, True, False, False]
        assert scores[0] == pytest.approx(1 - 3 / 12)
        (reason,) = judge.reasons
        assert "'eye' at http://127.0.0.1" in reason
        assert len(list(tmp_path.rglob("*.json"))) == 3  # it is asked about this one again
        judge(IMAGES, requests)
        assert len(server.requests) == 5


def test_a_server_that_fails_still_stops():
    requests = [ImageRequest(affect=Affect(0, 0))]
    for failure in (sending(401, {}), sending(503, {}), sending(400, {"error": "no images"})):
        with chat_server.serving(failure) as server:
            judge = build_judge("http", JudgeSpec(path=server.url, model="eye", retries=0))
            with pytest.raises(UserError, match="the judge at"):
                judge(IMAGES[:1], requests)


def test_no_score_is_ever_invented():
    requests = [ImageRequest(affect=Affect(0, 0))] * 4
    with chat_server.serving(lambda h, _: h.say("?")) as server:
        scores = build_judge("http", JudgeSpec(path=server.url, model="eye"))(IMAGES, requests)
        assert all(map(math.isnan, scores))
