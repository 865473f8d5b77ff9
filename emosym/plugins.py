"""Registries of named members, and the Python files by which a user adds members to them.

A plugin is run only when its path is given on a command line (`--plugin my_reward.py`). No
configuration file can name one, so a preset from elsewhere runs no code.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from emosym.errors import UserError, unknown

Member = TypeVar("Member")
ADVICE = "a plugin may be missing (--plugin FILE.py)"
_added: list[tuple[Registry[Any], str]] = []
"""What was registered, in order: the members of a plugin that fails are removed again."""


class Registry(dict[str, Member]):
    """A dict of the members of one kind by name, in the order they were added.

    Args:
        kind: what a member is, for error messages (`reward`, `gate`).
        members: the built-in members.
        check: raises UserError for a name and an object that cannot be a member.
    """

    def __init__(
        self, kind: str, members: Mapping[str, Member], check: Callable[[str, Any], object]
    ) -> None:
        super().__init__(members)
        self.kind = kind
        self.check = check

    def register(self, name: str, member: Member) -> None:
        """Add a member.

        Raises:
            UserError: the name is empty or not printable, another member has it, or the object
                cannot be a member.
        """
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise UserError(f"a {self.kind} needs a name", got=repr(name))
        if name in self:
            raise UserError(
                f"the {self.kind} {name!r} exists already",
                fix="register it under another name",
            )
        self.check(name, member)
        self[name] = member
        _added.append((self, name))

    def look_up(self, name: str) -> Member:
        """Return the member of a name; raise UserError, with the nearest name, for no member."""
        if name not in self:
            raise unknown(self.kind, name, self, ADVICE)
        return self[name]


def check_fields(what: str, member: object, cls: type, functions: Mapping[str, int]) -> None:
    """Raise UserError for an object that is not an instance of `cls` with usable functions.

    Args:
        what: name of the object, for error messages.
        member: the object.
        cls: its class.
        functions: attribute -> number of positional arguments it is called with.
    """
    if not isinstance(member, cls):
        raise UserError(f"{what} has the wrong type", got=_kind(member), expected=cls.__name__)
    for name, arguments in functions.items():
        check_function(f"{name} of {what}", getattr(member, name), arguments)


def check_function(what: str, function: object, arguments: int) -> None:
    """Raise UserError for an object that cannot be called with that many positional arguments."""
    expected = f"a function of {arguments} argument{'s' if arguments > 1 else ''}"
    if not callable(function) or isinstance(function, type):
        raise UserError(f"{what} is not a function", got=_kind(function), expected=expected)
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some functions written in C it is not known
        return
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        raise UserError(
            f"{what} takes other arguments", got=str(signature), expected=expected
        ) from None


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"an object of type {type(value).__name__}"


def load_plugin(path: Path | str) -> ModuleType:
    """Run a user's Python file, which registers its members, and return it as a module.

    A file that was loaded before is not run again. What it prints goes to stderr: stdout is for the
    results of a command. Of a file that fails, no member remains registered.

    Raises:
        UserError: not an existing `.py` file; an exception while it runs, with its file and line.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise UserError(
            f"no such plugin: {path}", expected="an existing Python file, as in my_reward.py"
        )
    file = path.resolve()
    name = f"emosym_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the file runs
    begun = len(_added)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except BaseException as error:  # SystemExit too: the file must not end the command unnoticed
        sys.modules.pop(name, None)
        for registry, added in _added[begun:]:
            registry.pop(added, None)
        del _added[begun:]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UserError(
            f"{path}:{_line(error, file)}: the plugin cannot be loaded",
            got=_message(error),
            fix="correct the file",
        ) from error
    return module


def _message(error: BaseException) -> str:
    """Return the type and the text of an exception; the text of a user's class may fail."""
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:
        return type(error).__name__


def _line(error: BaseException, file: Path) -> int:
    """Return the line of `file` at which an exception was raised, or 1 if it is not known."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno or 1
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return lines[-1] or 1 if lines else 1
