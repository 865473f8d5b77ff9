"""YAML from outside: files whose top level is a mapping, and single values.

It is read as plain data in bounded time and memory: no tags, which name types, and no anchors,
which a few lines can expand to gigabytes. `${...}` stays text.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emosym.errors import UserError

LARGEST = 2**20
"""Maximum size of a file in bytes; the largest preset has 8 kB."""
DEPTH = 50
"""Maximum nesting of a file or a value; deeper nesting overflows the stack of the YAML parser."""
_TRAP = re.compile(r"[-+]?(0[0-7_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)")
"""Text that YAML reads as an unexpected number: 010 is 8, and 1:30 is 90."""


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, ten times as fast, wherever PyYAML is built with it."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping, as plain data; JSON is YAML.

    Raises:
        UserError: not a readable file, too large, not such YAML.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise UserError(f"{path}: cannot be read (not a file)")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UserError(
                f"{path}: is too large for a configuration", expected=f"at most {LARGEST:,} bytes"
            )
        text = data.decode("utf-8")
        _guard(text)
        tree = OmegaConf.load(io.StringIO(text))
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a UTF-8 text file") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: not valid YAML: {_first_line(error)}") from None
    if not isinstance(tree, DictConfig):
        raise UserError(f"{path}: is a list", expected="a mapping of keys to values")
    if not tree:
        raise UserError(f"{path}: is empty", expected="a mapping of keys to values")
    return _plain(tree)


def parse_value(text: str) -> Any:
    """Return the plain data of a YAML value; raise ValueError with one line for another text."""
    try:
        end = _guard(text)
        if text[end:].strip():
            raise ValueError(f"{text[end:].strip()!r} is a comment of YAML; quote the value")
        return _plain(OmegaConf.from_dotlist(["value=" + text]))["value"]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(_first_line(error)) from error


def _guard(text: str) -> int:
    """Return the index at which the last value of a text ends.

    Raises YAMLError for what must not be constructed: deep nesting, anchors, tags, and
    numbers that YAML misreads.
    """
    depth, end = 0, 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        problem = f"nested deeper than {DEPTH} levels" if depth > DEPTH else _problem(event)
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        if isinstance(event, (yaml.ScalarEvent, yaml.CollectionEndEvent)):
            end = event.end_mark.index
    return end


def _problem(event: yaml.Event) -> str | None:
    """Return why a node may not be read, or None."""
    if getattr(event, "anchor", None):
        return f"anchors and aliases are not supported (&{event.anchor}); write the value out"
    if getattr(event, "tag", None):
        return f"tags are not supported ({event.tag})"
    if isinstance(event, yaml.ScalarEvent) and not event.style and _TRAP.fullmatch(event.value):
        return f"{event.value} is another number in YAML; write it in plain decimals"
    return None


def _plain(tree: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(tree))


def _first_line(error: Exception) -> str:
    message = str(getattr(error, "problem", None) or error).strip()
    return message.splitlines()[0] if message else type(error).__name__
