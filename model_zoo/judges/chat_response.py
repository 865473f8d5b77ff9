"""What the responses of chat-completions servers say: an answer, no answer, or an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emosym.strict_json import BadJson, read_json

CUT = {"length", "max_tokens"}
"""Values of `finish_reason` when the limit of tokens ended an answer."""
FILTERED = "content_filter"
"""Value of `finish_reason` when the server withholds an answer."""

_FILTER = re.compile("content.?filter|content.?policy|responsible.?ai|moderation", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What a working server says to one request: a text, or why there is none."""

    text: str = ""
    """Empty where there is a `problem`."""
    cut: bool = False
    """Whether the limit of tokens ended it."""
    problem: str = ""
    """Why it has no text: a refusal, a filter, the limit of tokens."""
    fix: str | None = None
    """What to do about the problem."""


class NotACompletion(ValueError):  # noqa: N818 (like `BadJson`: it describes the input)
    """A response that is no chat completion; its text says why."""


def status_of(status: int, data: bytes) -> int:
    """Return the status of a response; of an error in a body with HTTP 200 that which it states.

    It is 500 where the body states none.
    """
    error = stated_error(data) if status == 200 else None
    if error is None:
        return status
    code = str(error.get("code") or error.get("status") or "")
    return int(code) if re.fullmatch("[45][0-9]{2}", code) else 500


def read_completion(data: bytes) -> ChatAnswer:
    """Return what a completion says; raise NotACompletion for another response."""
    try:
        response: Any = read_json(data)
        choice = response["choices"][0]
        message = choice["message"]
        content = message.get("content")
    except BadJson as error:
        raise NotACompletion(str(error)) from error
    except (KeyError, IndexError, TypeError, AttributeError):
        raise NotACompletion("it has no choices[0].message.content") from None
    parts = [part for part in content if isinstance(part, dict)] if type(content) is list else []
    refusal = _first_text(message.get("refusal"), *(part.get("refusal") for part in parts))
    if refusal:
        return ChatAnswer(problem=f"the model refuses: {refusal}")
    finish = choice.get("finish_reason")
    if finish == FILTERED:
        return ChatAnswer(problem="the server's content filter withholds the answer")
    text = _text(content, parts)
    if text.strip():
        return ChatAnswer(text, cut=finish in CUT)
    thought = message.get("reasoning_content") or message.get("reasoning")
    thought = thought or any(part.get("type") in ("thinking", "reasoning") for part in parts)
    if finish in CUT:
        when = "while the model was reasoning" if thought else "before its first word"
        return ChatAnswer(problem=f"the limit of tokens ended it {when}", fix="raise max_tokens")
    if thought:
        return ChatAnswer(
            problem="the message holds only reasoning",
            fix="raise max_tokens, or switch the reasoning off on the server",
        )
    return ChatAnswer(problem="its message has no text")


def is_filtered(status: int, data: bytes) -> bool:
    """Return whether an error says that the server's content filter refused the request."""
    error = (stated_error(data) or {}) if status in (400, 403) else {}
    return any(_FILTER.search(str(error.get(key) or "")) for key in ("code", "type"))


def refused_parameters(status: int, data: bytes, body: Mapping[str, object]) -> set[str]:
    """Return the parameters of the request `body` that an error asks to rename or to leave out.

    These are `max_tokens`, where the error names `max_completion_tokens`, and `temperature`.
    """
    if status not in (400, 422):
        return set()
    text = data.decode("utf-8", "replace")
    named = {"max_tokens": "max_completion_tokens", "temperature": "temperature"}
    return {key for key, word in named.items() if key in body and word in text}


def stated_error(data: bytes) -> dict[str, object] | None:
    """Return the error that a body states: of the response, or of its first choice."""
    try:
        body = read_json(data)
    except BadJson:
        return None
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    error = body.get("error") or (first.get("error") if isinstance(first, dict) else None)
    if not error and body.get("object") == "error":
        error = body
    if not error:
        return None
    return error if isinstance(error, dict) else {"message": error}


def _text(content: object, parts: list[dict[str, Any]]) -> str:
    """Return the text of a message's content: a text, or a list with parts of text."""
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in parts if part.get("type") in ("text", "output_text")]
    return "".join(text for text in texts if isinstance(text, str))


def _first_text(*values: object) -> str:
    return next((value for value in values if isinstance(value, str) and value.strip()), "")
