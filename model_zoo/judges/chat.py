"""A client of servers that speak OpenAI's chat completions: vLLM, SGLang, llama.cpp and others.

It asks in parallel, waits no longer than it was told, and believes nothing that comes back.
"""

from __future__ import annotations

import base64
import email.utils
import io
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio
import httpx2
from anyio.from_thread import start_blocking_portal
from PIL import Image

from emosym.errors import UserError
from emosym.strict_json import BadJson, read_json

KEY = "EMOSYM_JUDGE_KEY"
"""The environment variable of the key, which is sent to the server's own address alone."""
TIMEOUT = 60.0
"""Seconds that one attempt may take, from connecting to the last byte."""
RETRIES = 3
LONGEST_WAIT = 60.0
"""Most seconds between two attempts, whatever the server asks for."""
PARALLEL = 8
"""Questions that are under way at once."""
MOST_BYTES = 2**20
"""Largest answer that is read."""
LARGEST_IMAGE = 20 * 2**20
"""Bytes of the largest PNG that is sent; servers refuse larger ones."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One user turn."""

    text: str
    images: tuple[Image.Image, ...]
    """RGB."""
    max_tokens: int


class Chat:
    """One model of one server."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        backoff: float = 1.0,
    ) -> None:
        """Take a server's address up to its version (`https://host/v1`) and a model's name there.

        Args:
            url: http or https; a key goes into the environment (`EMOSYM_JUDGE_KEY`), not here.
            model: as the server calls it.
            timeout: seconds that one attempt may take.
            retries: attempts after the first one, for a server that is busy, failing or away.
            backoff: seconds before the second attempt; they double with each.

        Raises:
            UserError: another kind of URL, numbers out of range, a key that cannot be sent.
        """
        self.url = _checked_url(url)
        self.model = model
        if not 0 < timeout < math.inf:
            raise UserError("the timeout of a judge", got=timeout, expected="more than 0 seconds")
        if retries < 0:
            raise UserError("the retries of a judge", got=retries, expected="0 or more")
        self.timeout, self.retries, self.backoff = timeout, retries, backoff
        self._key = _key()

    def ask(self, asked: Mapping[str, Asked], keep: Callable[[str, str], None]) -> None:
        """Ask all questions; call `keep(name, answer)` as answers come.

        Raises:
            UserError: one could not be answered, or `keep` refused its answer; the others are
                abandoned, and what was kept stays kept.
        """
        if not asked:
            return
        try:
            with start_blocking_portal() as portal:  # also where an event loop runs, as in Jupyter
                portal.call(self._ask, asked, keep)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _ask(self, asked: Mapping[str, Asked], keep: Callable[[str, str], None]) -> None:
        slots = anyio.Semaphore(PARALLEL)
        headers = {"Accept-Encoding": "identity"}  # what is packed small may unpack large
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"

        async def one(name: str, turn: Asked) -> None:
            async with slots:
                body = await anyio.to_thread.run_sync(self._body, turn)
                keep(name, await self._answer(client, body))

        async with (
            httpx2.AsyncClient(headers=headers, timeout=None, follow_redirects=False) as client,
            anyio.create_task_group() as group,
        ):
            for name, turn in asked.items():
                group.start_soon(one, name, turn)

    def _body(self, turn: Asked) -> dict[str, object]:
        images = [{"type": "image_url", "image_url": {"url": _data_url(i)}} for i in turn.images]
        content = [*images, {"type": "text", "text": turn.text}]
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": turn.max_tokens,
        }

    async def _answer(self, client: httpx2.AsyncClient, body: Mapping[str, object]) -> str:
        """Ask until there is an answer, or the attempts are used up."""
        problem, pause = "", self.backoff
        for attempt in range(self.retries + 1):
            wait = pause
            try:
                with anyio.fail_after(self.timeout):
                    status, headers, data = await self._post(client, body)
            except TimeoutError:
                problem = f"no answer in {self.timeout:g} s"
            except httpx2.TransportError as error:
                problem = str(error) or type(error).__name__
            else:
                if status == 200:
                    return self._content(data)
                if status != 429 and status < 500:
                    raise self._refused(status, headers, data)
                problem = f"HTTP {status} {self.shown(data)}"
                wait = max(wait, _asked_to_wait(headers))
            if attempt < self.retries:
                await anyio.sleep(min(wait, LONGEST_WAIT))
                pause = min(2 * pause, LONGEST_WAIT)
        raise UserError(
            f"the judge at {self.url} does not answer",
            got=f"{problem} (attempts: {self.retries + 1})",
            fix="see that its server runs there and has room, or allow it more time and retries",
        )

    async def _post(
        self, client: httpx2.AsyncClient, body: Mapping[str, object]
    ) -> tuple[int, httpx2.Headers, bytes]:
        """Return status, headers and body of one attempt."""
        data = bytearray()
        async with client.stream("POST", f"{self.url}/chat/completions", json=body) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise UserError(
                    f"the judge at {self.url} packs its answers, unasked",
                    got=response.headers["content-encoding"],
                    expected="plain JSON",
                )
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MOST_BYTES:
                    raise UserError(
                        f"the judge at {self.url} answers without end",
                        expected=f"at most {MOST_BYTES:,} bytes",
                        fix="see that the URL is that of a chat-completions server",
                    )
        return response.status_code, response.headers, bytes(data)

    def _content(self, data: bytes) -> str:
        try:
            content = read_json(data)["choices"][0]["message"]["content"]
            if isinstance(content, str) and content.strip():
                return content
            why = "its message has no text"
        except BadJson as error:
            why = str(error)
        except (KeyError, IndexError, TypeError):
            why = "it has no choices[0].message.content"
        raise UserError(
            f"the judge at {self.url} gives no chat completion",
            got=f"{self.shown(data)!r} ({why})",
            fix="see that the URL is that of a chat-completions server (it ends in /v1, say)",
        )

    def _refused(self, status: int, headers: httpx2.Headers, data: bytes) -> UserError:
        fix = "see what its server's log says"
        got = f"HTTP {status} {self.shown(data)}"
        if status in (401, 403):
            fix = f"put a key that it takes into the environment variable {KEY}"
        elif status == 404:
            fix = f"see that the URL is right, and that it serves {self.model!r}"
        elif 300 <= status < 400:
            got = f"HTTP {status} to {self.shown(headers.get('location', ''))}"
            fix = "give that address itself if you trust it: a key is never sent on"
        return UserError(f"the judge at {self.url} refuses", got=got, fix=fix)

    def shown(self, said: bytes | str) -> str:
        """Return the beginning of what a server said, fit for a terminal and without the key."""
        text = said if isinstance(said, str) else said.decode("utf-8", "replace")
        if self._key:
            text = text.replace(self._key, "***")
        return "".join(c if c.isprintable() else " " for c in text)[:200].strip()


def _checked_url(url: str) -> str:
    """Return a URL without its last slash; one that is refused is not shown, for it may hold a key.

    Raises:
        UserError: it cannot be read, is not of the web, or holds more than an address.
    """
    expected = "http(s)://host[:port]/v1, without a user, a query or a fragment"
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UserError("a judge's URL cannot be read", expected=expected) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        got = f"scheme {parsed.scheme!r}, host {parsed.host!r}"
        raise UserError("a judge's URL is none of the web", got=got, expected=expected)
    if parsed.port is not None and not 0 < parsed.port < 2**16:
        raise UserError("a judge's URL names no port", got=parsed.port, expected=expected)
    if parsed.userinfo or parsed.query or parsed.fragment:
        fix = f"put a key into the environment variable {KEY}"
        raise UserError("a judge's URL holds more than an address", expected=expected, fix=fix)
    return str(parsed).rstrip("/")


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the key in {KEY} holds a character that cannot be sent")
    return key


def _data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    if stream.tell() > LARGEST_IMAGE:
        raise UserError(
            "an image is too large to be sent to a judge",
            got=f"{image.width} x {image.height} pixels, {stream.tell():,} bytes as PNG",
            expected=f"at most {LARGEST_IMAGE:,} bytes",
            fix="shrink it first",
        )
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _asked_to_wait(headers: httpx2.Headers) -> float:
    """Return the seconds of Retry-After, a number or a date; 0 where it says nothing."""
    said = headers.get("retry-after", "")
    if said.isascii() and said.isdigit():
        return float(said)
    try:
        return email.utils.parsedate_to_datetime(said).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
