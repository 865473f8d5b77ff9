"""The one way into a command line, and out of it."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from emosym.errors import UserError


def run(app: typer.Typer, name: str) -> NoReturn:
    """Run the command line `name` and leave.

    Bad input, wrong usage and what the system refuses are one line on stderr and exit code 2.
    """
    try:
        try:
            _check_words()
            code = app(prog_name=name, standalone_mode=False)
        finally:
            print(end="", flush=True)  # here a full disk can still be told
    except UserError as error:
        told = error
    except TyperException as error:
        told = _wrong_usage(error)
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stdout = None
        sys.exit(1)
    except OSError as error:
        sys.stdout = None  # it may be what failed; the interpreter would try again and tell again
        where = f": {error.filename}" if error.filename else ""
        told = UserError(
            f"{error.strerror or error}{where}", fix="mend it, or choose another place"
        )
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        near = error.object[max(error.start - 30, 0) : error.end + 30]
        told = UserError("this is not UTF-8 text", got=ascii(near))
    else:
        sys.exit(code)
    print(f"error: {told}", file=sys.stderr)
    sys.exit(2)


def _check_words() -> None:
    """Refuse what no option can mean, before any work is done."""
    for before, word in pairwise(sys.argv):
        word.encode()  # bytes that are no UTF-8 are surrogates here, and would fail late
        if re.fullmatch(r"(--[\w-]+=)?", word):  # as a path it would be the working folder
            raise UserError(
                "an argument is empty",
                got=f"{word or repr(word)} after {before}",
                fix="give it a value, or leave it out",
            )


def _wrong_usage(error: TyperException) -> UserError:
    """Return typer's own error as ours."""
    what = error.format_message().rstrip(".")
    if not what:
        sys.exit(2)  # no arguments at all: typer has shown the help
    context = getattr(error, "ctx", None)
    return UserError(what, fix=context and f"see `{context.command_path} --help`")
