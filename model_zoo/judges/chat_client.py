"""A client of OpenAI-compatible chat-completions servers (vLLM, SGLang, llama.cpp and others).

It sends requests in parallel with a time limit for each, and checks all that the server returns.
"""

from __future__ import annotations

import base64
import email.utils
import io
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import anyio
import httpx2
from anyio.from_thread import start_blocking_portal
from PIL import Image

from emosym.errors import UserError
from model_zoo.judges.chat_response import (
    ChatAnswer,
    NotACompletion,
    is_filtered,
    read_completion,
    refused_parameters,
    status_of,
)

KEY = "EMOSYM_JUDGE_KEY"
"""Environment variable of the API key."""
KEY_URL = "EMOSYM_JUDGE_URL"
"""Environment variable of the one base URL that the key is sent to. A URL in the `config.yaml` of a
run that was received must not be enough to get the key."""
TIMEOUT = 60.0
"""Default time limit of one attempt in seconds, from connecting to the last byte."""
RETRIES = 3
"""Default number of further attempts after a failed one."""
RETRIED = {408, 409, 425, 429}
"""Statuses below 500 that are tried again: timeout, conflict, too early, too many requests."""
DEFAULT_TEMPERATURE = 1.0
"""The temperature that servers use where a request names none; it is never sent."""
MAX_WAIT = 60.0
"""Maximum seconds between two attempts, even if the server asks for more."""
PARALLEL = 8
"""Maximum number of concurrent requests."""
MAX_RESPONSE_BYTES = 2**20
"""Maximum size of a response."""
MAX_IMAGE_BYTES = 20 * 2**20
"""Maximum size of an image as PNG; servers refuse larger ones."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One user turn."""

    text: str
    images: tuple[Image.Image, ...]
    """RGB; they precede the text."""
    max_tokens: int
    """Maximum length of the answer in tokens, with its reasoning."""


class ChatClient:
    """Sends chat-completion requests to one model of one server."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        backoff: float = 1.0,
        temperature: float = 0.0,
        limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
    ) -> None:
        """Check the arguments and read the API key; nothing is sent.

        Args:
            url: base URL with the version, `http(s)://host[:port]/v1`. An API key belongs into the
                environment variable `EMOSYM_JUDGE_KEY`, not into the URL; `EMOSYM_JUDGE_URL` then
                names the same URL.
            model: name of the model on the server.
            timeout: time limit of one attempt in seconds.
            retries: further attempts if the server is busy, fails or cannot be reached.
            backoff: seconds before the second attempt; doubled for each further one.
            temperature: of the answers; 0 is greedy, `DEFAULT_TEMPERATURE` is not sent. A server
                that refuses the parameter is asked without it, from then on.
            limit_name: name under which the limit of tokens is sent. A server that asks for
                `max_completion_tokens` gets it, from then on.

        Raises:
            UserError: an invalid URL, numbers out of range, a key that cannot be sent or that is
                not for this URL.
        """
        self.url = _checked_url(url)
        self.model = model
        if not 0 < timeout < math.inf:
            raise UserError(
                "invalid timeout of a judge", got=timeout, expected="more than 0 seconds"
            )
        if retries < 0:
            raise UserError("invalid retries of a judge", got=retries, expected="0 or more")
        if not 0 <= temperature <= 2:
            raise UserError("invalid temperature of a judge", got=temperature, expected="0 to 2")
        self.timeout, self.retries, self.backoff = timeout, retries, backoff
        self.temperature = temperature
        self.limit_name = limit_name
        self._refused: set[str] = set()  # parameters that the server does not take
        self._key = _key(self.url)

    def ask(
        self, requests: Mapping[str, ChatRequest], on_answer: Callable[[str, ChatAnswer], None]
    ) -> None:
        """Send all requests; call `on_answer(name, answer)` for each answer as it arrives.

        Raises:
            UserError: a request failed, or `on_answer` raised it; the other requests are cancelled.
        """
        if not requests:
            return
        try:
            with start_blocking_portal() as portal:  # works inside a running event loop (Jupyter)
                portal.call(self._ask, requests, on_answer)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _ask(
        self, requests: Mapping[str, ChatRequest], on_answer: Callable[[str, ChatAnswer], None]
    ) -> None:
        slots = anyio.Semaphore(PARALLEL)
        headers = {"Accept-Encoding": "identity"}  # a small compressed body may unpack to gigabytes
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"

        async def send(name: str, request: ChatRequest) -> None:
            async with slots:
                messages = await anyio.to_thread.run_sync(_messages, request)
                on_answer(name, await self._answer(client, messages, request.max_tokens))

        async with (
            httpx2.AsyncClient(headers=headers, timeout=None, follow_redirects=False) as client,
            anyio.create_task_group() as group,
        ):
            for name, request in requests.items():
                group.start_soon(send, name, request)

    def _body(self, messages: list[object], max_tokens: int) -> dict[str, object]:
        """Return the request, with the parameters that the server takes."""
        body: dict[str, object] = {"model": self.model, "messages": messages}
        if self.temperature != DEFAULT_TEMPERATURE and "temperature" not in self._refused:
            body["temperature"] = self.temperature
        renamed = "max_tokens" in self._refused
        body["max_completion_tokens" if renamed else self.limit_name] = max_tokens
        return body

    async def _answer(
        self, client: httpx2.AsyncClient, messages: list[object], max_tokens: int
    ) -> ChatAnswer:
        """Return the answer of the first attempt that succeeds; raise UserError if none does."""
        problem, pause, attempt = "", self.backoff, 0
        while attempt <= self.retries:
            wait = pause
            body = self._body(messages, max_tokens)
            try:
                with anyio.fail_after(self.timeout):
                    status, headers, data = await self._post(client, body)
            except TimeoutError:
                problem = f"no answer in {self.timeout:g} s"
            except httpx2.TransportError as error:
                problem = str(error) or type(error).__name__
            else:
                if refused := refused_parameters(status, data, body):
                    self._refused |= refused
                    continue  # at most once for each parameter, so this ends
                if is_filtered(status, data):
                    return ChatAnswer(problem=f"the server's filter refuses: {self.shown(data)}")
                if status == 200:
                    return self._completion(data)
                if status not in RETRIED and status < 500:
                    raise self._refusal(status, headers, data)
                problem = f"HTTP {status} {self.shown(data)}"
                wait = max(wait, _retry_after(headers))
            attempt += 1
            if attempt <= self.retries:
                await anyio.sleep(min(wait, MAX_WAIT))
                pause = min(2 * pause, MAX_WAIT)
        raise UserError(
            f"the judge at {self.url} does not answer",
            got=f"{problem} (attempts: {self.retries + 1})",
            fix="check that the server runs and is not overloaded, or raise timeout and retries",
        )

    async def _post(
        self, client: httpx2.AsyncClient, body: Mapping[str, object]
    ) -> tuple[int, httpx2.Headers, bytes]:
        """Make one attempt; return status, headers and body of the response."""
        data = bytearray()
        async with client.stream("POST", f"{self.url}/chat/completions", json=body) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise UserError(
                    f"the judge at {self.url} compresses its responses",
                    got=response.headers["content-encoding"],
                    expected="uncompressed JSON",
                )
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_RESPONSE_BYTES:
                    raise UserError(
                        f"the response of the judge at {self.url} is too large",
                        expected=f"at most {MAX_RESPONSE_BYTES:,} bytes",
                        fix="check that the URL is that of a chat-completions server",
                    )
        return status_of(response.status_code, bytes(data)), response.headers, bytes(data)

    def _completion(self, data: bytes) -> ChatAnswer:
        try:
            return read_completion(data)
        except NotACompletion as why:
            raise UserError(
                f"the response of the judge at {self.url} is not a chat completion",
                got=f"{self.shown(data)!r} ({why})",
                fix="check that the URL is that of a chat-completions server (it often ends in"
                " /v1)",
            ) from why

    def _refusal(self, status: int, headers: httpx2.Headers, data: bytes) -> UserError:
        fix = "look at the log of the server"
        got = f"HTTP {status} {self.shown(data)}"
        if status in (401, 403):
            fix = f"put a valid key into the environment variable {KEY}"
        elif status == 404:
            fix = f"check the URL, and that the server has a model named {self.model!r}"
        elif 300 <= status < 400:
            got = f"HTTP {status} to {self.shown(headers.get('location', ''))}"
            fix = "use that address directly if you trust it; redirects are not followed"
        return UserError(f"the judge at {self.url} refuses the request", got=got, fix=fix)

    def shown(self, response: bytes | str) -> str:
        """Return the beginning of a response, printable and with the API key masked."""
        text = response if isinstance(response, str) else response.decode("utf-8", "replace")
        if self._key:
            text = text.replace(self._key, "***")
        return "".join(c if c.isprintable() else " " for c in text)[:200].strip()


def _checked_url(url: str, what: str = "the URL of a judge") -> str:
    """Return a URL without trailing slash. Errors do not show it, because it may contain a key.

    Args:
        url: of a server.
        what: the place that names it, for messages.

    Raises:
        UserError: it cannot be parsed, is not http(s), or has more parts than an address.
    """
    expected = "http(s)://host[:port]/v1, without user, query and fragment"
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UserError(f"{what} cannot be parsed", expected=expected) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        got = f"scheme {parsed.scheme!r}, host {parsed.host!r}"
        raise UserError(f"{what} is not an http address", got=got, expected=expected)
    if parsed.port is not None and not 0 < parsed.port < 2**16:
        raise UserError(f"{what} has an invalid port", got=parsed.port, expected=expected)
    if parsed.userinfo or parsed.query or parsed.fragment:
        fix = f"put a key into the environment variable {KEY}"
        raise UserError(f"{what} is not only an address", expected=expected, fix=fix)
    return str(parsed).rstrip("/")


def _key(url: str) -> str:
    """Return the API key for a server, '' without one; raise UserError if it is for another."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the key in {KEY} has characters that HTTP headers cannot hold")
    named = os.environ.get(KEY_URL, "").strip()
    if key and (not named or _checked_url(named, f"the URL in {KEY_URL}") != url):
        raise UserError(
            f"the key in {KEY} is not sent to the judge at {url}",
            got=f"{KEY_URL}={named}" if named else f"no {KEY_URL}",
            expected="the URL of this judge there",
            fix=f"if you trust this server with the key, set {KEY_URL}={url}; else unset {KEY}",
        )
    return key


def _messages(request: ChatRequest) -> list[object]:
    urls = [_data_url(image) for image in request.images]
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*images, {"type": "text", "text": request.text}]}]


def _data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    if stream.tell() > MAX_IMAGE_BYTES:
        raise UserError(
            "an image is too large to be sent to a judge",
            got=f"{image.width} x {image.height} pixels, {stream.tell():,} bytes as PNG",
            expected=f"at most {MAX_IMAGE_BYTES:,} bytes",
            fix="resize it first",
        )
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _retry_after(headers: httpx2.Headers) -> float:
    """Return the seconds of Retry-After (a number or a date); 0 if it is absent or invalid."""
    value = headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        return float(value)
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
