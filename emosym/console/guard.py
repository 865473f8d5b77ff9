"""Entry point of every command line: checks arguments, and turns errors into one line."""

from __future__ import annotations

import os
import re
import sys
from itertools import pairwise
from typing import Any, NoReturn

import typer
from typer.exceptions import TyperException

from emosym.console.streams import protect_streams
from emosym.errors import UserError, in_words

RENAMED = {
    "--count": "--num-images-per-prompt",
    "--steps": "--num-inference-steps",
    "--guidance": "--guidance-scale",
}
"""Old name of an option -> new name. An error names the new one where the command has it."""


def run(app: typer.Typer, name: str) -> NoReturn:
    """Run the command line `name` and exit.

    Bad input, wrong usage and errors of the operating system are one line on stderr, with exit
    code 2. Ctrl-C is one line, with exit code 130. Whatever is printed, by whom, cannot steer the
    terminal.
    """
    protect_streams()
    try:
        try:
            _check_arguments()
            code = app(prog_name=name, standalone_mode=False)
        finally:
            print(end="", flush=True)  # a full disk is an error that can still be reported here
    except UserError as error:
        problem = error
    except TyperException as error:
        problem = _usage_error(error)
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the program that reads our output has closed it
        _discard_stdout()
        sys.exit(1)
    except OSError as error:
        _discard_stdout()
        problem = UserError(in_words(error), fix="correct it, or choose another place")
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        near = error.object[max(error.start - 30, 0) : error.end + 30]
        problem = UserError("this is not UTF-8 text", got=ascii(near))
    else:
        sys.exit(code)
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def _discard_stdout() -> None:
    """Drop stdout: it may be what failed, and the interpreter would flush it again at exit."""
    stream: Any = None
    sys.stdout = stream


def _check_arguments() -> None:
    """Raise UserError for an argument that no option can accept."""
    for before, argument in pairwise(sys.argv):
        if not any(map(os.path.lexists, (argument, os.path.dirname(argument)))):  # no file's name
            argument.encode()  # bytes that are not UTF-8 are surrogates here, and would fail later
        if re.fullmatch(r"(--[\w-]+=)?", argument):  # as a path it would be the current folder
            raise UserError(
                "an argument is empty",
                got=f"{argument or repr(argument)} after {before}",
                fix="give it a value, or leave it out",
            )


def _usage_error(error: TyperException) -> UserError:
    """Return an error of typer as a `UserError`."""
    what = error.format_message().rstrip(".")
    if not what:
        sys.exit(2)  # no arguments at all: typer has printed the help
    context = getattr(error, "ctx", None)
    if context is None:
        return UserError(what)
    new = RENAMED.get(getattr(error, "option_name", ""))
    if new is not None and any(new in parameter.opts for parameter in context.command.params):
        what = f"the option {getattr(error, 'option_name', '')} was renamed to {new}"
    return UserError(what, fix=f"see `{context.command_path} --help`")
