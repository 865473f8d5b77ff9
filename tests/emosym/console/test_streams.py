"""Nothing from outside steers a terminal, whoever prints it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from rich.cells import cell_len
from rich.markdown import Markdown
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from emosym.console.streams import PrintableStream
from emosym.console.tables import print_table
from emosym.console.terminal import console, print_json, print_passage
from emosym.errors import UserError, printable
from tests.emosym.console.hostile import HOSTILE, SEQUENCES, on_a_terminal, unsafe

PAIRS = [
    ("\x00\x07\x08\x0b\x0c\x1b", r"\x00\x07\x08\x0b\x0c\x1b"),
    ("\x7f\x80\x85\x9b\x9f", r"\x7f\x80\x85\x9b\x9f"),
    ("\u202a\u202e\u2066\u2069\u200e\u061c", r"\u202a\u202e\u2066\u2069\u200e\u061c"),
    ("\u200b\u200d\ufeff\u2060\u00ad", r"\u200b\u200d\ufeff\u2060\xad"),
    ("\u2028\u2029", r"\u2028\u2029"),
    ("\udcff\ud800", r"\udcff\ud800"),
    ("\U000e0041", r"\U000e0041"),  # a tag character: invisible
    ("a\tb\nc\rd", r"a\tb\nc\rd"),
    ("é 小舟 e\u0301 \u00a0\u3000\\ [red]", "é 小舟 e\u0301 \u00a0\u3000\\ [red]"),
]


@pytest.mark.parametrize(("text", "shown"), PAIRS)
def test_what_is_printable(text, shown):
    assert printable(text) == shown
    assert not unsafe(printable(text))
    assert str(UserError(text.strip("\t\r\n\x0b\x0c\x85\u2028\u2029 \u00a0\u3000") or "x"))


def test_every_character_of_unicode_is_printed_safely():
    everything = "".join(map(chr, range(0x110000)))
    out = io.StringIO()
    PrintableStream(out).write(everything)
    assert not unsafe(out.getvalue())
    json.dumps(out.getvalue(), ensure_ascii=False).encode()  # no surrogates


def test_a_stream_keeps_lines_and_tabs_and_escapes_the_rest():
    out = io.StringIO()
    stream = PrintableStream(out)
    stream.write("a\tb\r\nc\rd\x1b[2J\n")
    stream.writelines(["\x9b", "\u202e\n"])
    assert out.getvalue() == "a\tb\nc\\rd\\x1b[2J\n\\x9b\\u202e\n"
    with pytest.raises(TypeError):
        stream.write(b"")


def test_the_bar_of_a_library_becomes_lines_where_there_is_no_terminal():
    import tqdm

    out = io.StringIO()
    for _ in tqdm.tqdm(range(2), file=PrintableStream(out), desc="\x1b[2J", mininterval=0):
        pass
    assert not unsafe(out.getvalue())
    assert out.getvalue().count("\n") >= 3
    assert "\r" not in out.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_output_of_every_kind(terminal, monkeypatch):
    """A table, a passage, JSON, Markdown, styles, a bar, and prints while it runs."""

    def work():
        print_table((HOSTILE, "b"), [(HOSTILE, "c"), ("小舟", HOSTILE)], title=HOSTILE)
        print_passage(HOSTILE, f"{HOSTILE}\n{HOSTILE}")
        screen = console()
        table = Table(title=HOSTILE)
        table.add_column(HOSTILE)
        table.add_row(HOSTILE)
        table.add_row(Text(HOSTILE, style="link https://evil.example/x"))
        screen.print(table, HOSTILE)
        screen.print(f"[link=https://evil.example/x]{HOSTILE}[/link]")
        screen.print(Markdown(f"# {HOSTILE}\n[words](https://evil.example/x) `{HOSTILE}`\n"))
        with Progress(console=console(stderr=True)) as bar:
            bar.add_task(HOSTILE, total=3)
            print(HOSTILE)
            print(HOSTILE, file=sys.stderr)
            console().print(Text(HOSTILE))
        print(HOSTILE, file=sys.stderr)

    shown = on_a_terminal(work) if terminal else _piped(work, monkeypatch)
    assert not unsafe(shown)
    assert "\\x1b[2J" in shown
    assert "\x1b]8" not in shown


def _piped(work, monkeypatch):
    out = io.StringIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, PrintableStream(out))
    work()
    return out.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_valid_in_every_encoding(encoding, monkeypatch):
    value = {HOSTILE: [HOSTILE, "é 小舟", "\udcff", "\U000e0041"]}
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding))
    print_json(value)
    sys.stdout.flush()
    shown = buffer.getvalue().decode(encoding)
    assert not unsafe(shown)
    assert json.loads(shown) == value
    buffer.getvalue().decode("utf-8" if encoding == "utf-8" else "ascii")


def test_a_table_of_wide_and_combining_characters_has_straight_edges():
    rows = [
        ("小舟", "1"),
        ("e\u0301e\u0301", "2"),
        ("a\u202eb", "3"),
        ("\x1b[2J", "4"),
        ("👍", "5"),
    ]
    shown = on_a_terminal(lambda: print_table(("name", "n"), rows))
    lines = [line for line in shown.splitlines() if line.strip()]
    assert len({cell_len(SEQUENCES.sub("", line)) for line in lines}) == 1


def test_tracebacks_warnings_and_loggers_are_escaped():
    """Of a process: what the interpreter and libraries print."""
    code = (
        "import logging, sys, typer, warnings\n"
        "from emosym.console import guard\n"
        "app = typer.Typer(pretty_exceptions_enable=False)\n"
        "@app.command()\n"
        "def work():\n"
        "    warnings.warn(TEXT)\n"
        "    logging.getLogger('x').warning(TEXT)\n"
        "    raise RuntimeError(TEXT)\n"
        f"TEXT = {HOSTILE!r}\n"
        "guard.run(app, 'work')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False, env=os.environ
    )
    assert done.returncode == 1
    shown = done.stderr.decode()
    assert not unsafe(shown)
    assert shown.count("\\x1b[2J") == 3
    assert "RuntimeError" in shown
