"""Output of commands: results on stdout, progress on stderr."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from emosym.errors import printable
from emosym.strict_json import to_json


def print_json(value: object) -> None:
    """Print a value as strict JSON, see `to_json`."""
    print(to_json(value, indent=2))


def print_passage(heading: str, text: str) -> None:
    """Print a heading on a line of its own and, below it, an indented and wrapped text."""
    console = Console()
    console.print(Text(printable(heading)), soft_wrap=True)
    console.print(Padding(Text("\n".join(map(printable, text.splitlines()))), (0, 0, 0, 4)))
