"""Output of commands: results on stdout, progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.text import Text

from emosym.errors import printable
from emosym.strict_json import to_json


class PrintableConsole(Console):
    """A rich console whose only control sequences are rich's own."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render an object, and escape its text; links are control sequences with text in them."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                style = segment.style and segment.style.update_link(None)
                yield Segment(printable(segment.text, keep="\n"), style)


def console(*, stderr: bool = False) -> PrintableConsole:
    """Return the console of standard output, or of standard error; every other one is unsafe."""
    stream: Any = sys.stderr if stderr else sys.stdout
    while hasattr(stream, "rich_proxied_file"):  # of `PrintableStream`, and of a running bar
        stream = stream.rich_proxied_file
    return PrintableConsole(file=stream)


def print_json(value: object) -> None:
    """Print a value as strict JSON, see `to_json`."""
    ascii_only = (sys.stdout.encoding or "utf-8").lower() not in ("utf-8", "utf8")
    print(to_json(value, indent=2, ensure_ascii=ascii_only))


def print_passage(heading: str, text: str) -> None:
    """Print a heading on a line of its own and, below it, an indented and wrapped text."""
    out = console()
    out.print(Text(printable(heading)), soft_wrap=True)
    out.print(Padding(Text("\n".join(map(printable, text.splitlines()))), (0, 0, 0, 4)))
