"""Standard output and standard error that never pass a control character on to a terminal."""

from __future__ import annotations

import re
import sys
from typing import Any

from emosym.errors import printable

_BAR = re.compile(r"\r|(\x1b\[A)+\Z")
"""What progress bars of libraries write first: to the start of the line, or lines up."""


class PrintableStream:
    """A text stream in which everything but line ends and tabs is printable.

    It is the last line of defence: it also holds for messages of libraries, warnings and
    tracebacks. Rich writes to `rich_proxied_file`, because its colours are control sequences; the
    text that we give it is escaped by `emosym.console.terminal.console`.
    """

    def __init__(self, stream: Any) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write a text, escaped."""
        if not isinstance(text, str):
            raise TypeError(f"a text stream takes str, not {type(text).__name__}")
        bar = _BAR.match(text)
        start = bar[0] if bar else ""
        rest = printable(text[len(start) :].replace("\r\n", "\n"), keep="\n\t")
        if start and not self.isatty():
            start = "\n" if start == "\r" and rest else ""
        self.rich_proxied_file.write(start + rest)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts, escaped."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def protect_streams() -> None:
    """Make `sys.stdout` and `sys.stderr` printable streams, of which no character is an error."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None or isinstance(stream, PrintableStream):
            continue
        if hasattr(stream, "reconfigure"):  # what its encoding lacks is escaped too
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, PrintableStream(stream))
