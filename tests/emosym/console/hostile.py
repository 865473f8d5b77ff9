"""Text that attacks a terminal, and a terminal to attack."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import unicodedata
from collections.abc import Callable

from emosym.console.streams import PrintableStream

HOSTILE = (
    "a\x1b[2Jb\x1b]0;title\x07c\x1b[35;7mred\x9b2Jd\u202ee\u2066f\u200bg\u2028h\u2029i\x7fj\x85k"
    "\x1b]8;;http:\\\\x\x1b\\l [red]m[/red] \x08\x0cn\ro"
)
"""Clears the screen, sets its title, colours, hides, links, reverses and breaks lines."""
NAME = HOSTILE.replace("/", "")
"""The same as a file name."""
SEQUENCES = re.compile(r"\x1b\[((?!35;7)[0-9;]*m|\?25[lh]|[0-9]*[AK])|\r")
"""What rich itself writes to a terminal: colours, the cursor of a progress bar."""


def unsafe(shown: str) -> set[str]:
    """Return the characters of an output that a terminal may act on, or that nobody sees."""
    return {
        c
        for c in SEQUENCES.sub("", shown)
        if not (c in "\n\t" or c.isprintable() or unicodedata.category(c) == "Zs")
    }


def on_a_terminal(work: Callable[[], object]) -> str:
    """Call a function whose standard output and standard error are a terminal; return both."""
    master, slave = os.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while chunk := os.read(master, 65536):
                chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", encoding="utf-8", newline="\n") as screen:
        stream = PrintableStream(screen)
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):  # type: ignore[type-var]
            work()
    reader.join()
    os.close(master)
    return b"".join(chunks).decode()
