"""Registries of named members, and the Python files by which a user adds members to them.

A plugin is run only when its path is given on a command line (`--plugin my_reward.py`). No
configuration file can name one, so a preset from elsewhere runs no code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from emosym.errors import UserError, unknown

Member = TypeVar("Member")


class Registry(dict[str, Member]):
    """A dict of the members of one kind by name, in the order they were added.

    Args:
        kind: what a member is, for error messages (`reward`, `gate`).
        members: the built-in members.
    """

    def __init__(self, kind: str, members: Mapping[str, Member]) -> None:
        super().__init__(members)
        self.kind = kind

    def register(self, name: str, member: Member) -> None:
        """Add a member.

        Raises:
            UserError: the name is empty, or another member has it.
        """
        if not name:
            raise UserError(f"a {self.kind} needs a name", got=repr(name))
        if name in self:
            raise UserError(
                f"the {self.kind} {name!r} exists already",
                fix="register it under another name",
            )
        self[name] = member

    def look_up(self, name: str) -> Member:
        """Return the member of a name; raise UserError, with the nearest name, for no member."""
        if name not in self:
            raise unknown(self.kind, name, self)
        return self[name]


def load_plugin(path: Path | str) -> ModuleType:
    """Run a user's Python file, which registers its members, and return it as a module.

    A file that was loaded before is not run again.

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
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(
            f"{path}:{_line(error, file)}: the plugin cannot be loaded",
            got=f"{type(error).__name__}: {error}",
            fix="correct the file",
        ) from error
    return module


def _line(error: BaseException, file: Path) -> int:
    """Return the line of `file` at which an exception was raised, or 1 if it is not known."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno or 1
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return lines[-1] or 1 if lines else 1
