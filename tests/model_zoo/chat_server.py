"""A real server of chat completions for tests: its answers come from a script."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

Script = Callable[["Handler", dict], None]
"""Answers one request, given its parsed body."""


class Server(ThreadingHTTPServer):
    """Keeps the bodies of all requests."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
        self.server.paths.append(self.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it hung up on us
            self.server.script(self, body)

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def say(self, text: object) -> None:
        """Send a completion."""
        completion = {"choices": [{"message": {"role": "assistant", "content": text}}]}
        self.send(200, json.dumps(completion).encode())

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(script: Script) -> Iterator[Server]:
    """Serve until the block is left; what still waits is let go by `closing`."""
    server = Server(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def pictures(body: dict) -> list[Image.Image]:
    """Return the images of a request."""
    parts = [p for p in body["messages"][0]["content"] if p["type"] == "image_url"]
    urls = [part["image_url"]["url"] for part in parts]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def text(body: dict) -> str:
    """Return the words of a request."""
    (part,) = [part for part in body["messages"][0]["content"] if part["type"] == "text"]
    return part["text"]
