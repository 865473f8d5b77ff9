"""Configurations: dataclass defaults, then `base`, then a YAML preset, then `key=value` overrides.

Later values win. A preset may extend another one (`extends: other.yaml`, relative to its folder).
Mappings merge key by key; lists, scalars and an empty mapping (`{}`) replace. Numbers are finite.
The result is a plain dataclass, never a DictConfig.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import io
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emosym.errors import UserError

Config = TypeVar("Config")
Layer = tuple[str, dict[str, Any]]
"""Name of a source of values (a file), and the values."""
_BAD: Any = object()
"""Placeholder of a value that could not be read; the reason is among the problems."""
WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    Any: "a finite value",
}
"""Names of leaf types in error messages."""
_LOSSY: dict[Any, tuple[type, ...]] = {int: (bool,), float: (bool,), str: (bool, float)}
"""Leaf type -> types of values that OmegaConf would convert to it, though they are mistakes."""
DEPTH = 50
"""Maximum nesting of a file or a value; deeper nesting overflows the stack of the YAML parser."""
_TRAP = re.compile(r"[-+]?(0[0-7_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)")
"""Text that YAML reads as an unexpected number: 010 is 8, and 1:30 is 90."""


def load_config(
    cls: type[Config],
    source: Path | None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Return `cls` filled from `base`, then the preset `source`, then `overrides`, in this order.

    Overrides are `section.key=value` with a YAML value; a list item is `phases.0.steps=3`.

    A dataclass may list old names of options: `RENAMED: ClassVar[Mapping[str, str]] = {"lr":
    "learning_rate"}`. Both names are relative to its section and may be dotted paths. An old name
    is refused, and the message names the new one.

    Raises `UserError` naming every problem at once: unknown keys, old names, wrong types, missing
    values, and each `UserError` or `ValueError` of a `__post_init__`.
    """
    layers: list[Layer] = [("base", dict(base or {}))]
    if source is not None:
        layers += _preset(Path(source), ())
    problems = _Problems(source, layers, overrides)
    merged = _defaults(cls)
    for _, layer in layers:
        merged = _merge(merged, layer)
    tree = OmegaConf.create(merged)
    for item in overrides:
        _override(tree, item, problems)
    config = _read(cls, _resolve(tree, problems), "", problems)
    problems.raise_any()
    return config


def dump_config(config: object) -> str:
    """Return a configuration as YAML that `load_config` reads back to an equal one."""
    plain = _plain(OmegaConf.to_container(OmegaConf.structured(config)))
    return OmegaConf.to_yaml(OmegaConf.create(plain))


class _Problems:
    """Problems in the order of discovery, each with the layer that set the value."""

    def __init__(
        self, source: Path | None, layers: Sequence[Layer], overrides: Sequence[str]
    ) -> None:
        self.name = str(source) if source is not None else "configuration"
        self.layers = [(name, set(_keys(layer))) for name, layer in layers]
        self.layers += [(f"override {item!r}", _prefixes(_key_of(item))) for item in overrides]
        self.found: list[str] = []

    def add(self, path: str, why: str) -> None:
        """Record a problem at `path` ('' is the whole configuration)."""
        where = f"{path}: " if path else ""
        origin = self._origin(path)
        self.found.append(f"{where}{why}" + (f" (in {origin})" if origin else ""))

    def _origin(self, path: str) -> str | None:
        """Return the last layer that sets `path`, or else the section that holds it."""
        while path:
            for name, keys in reversed(self.layers):
                if path in keys:
                    return name
            path = path.rpartition(".")[0]
        return None

    def raise_any(self) -> None:
        """Raise one UserError that lists all problems, if there are any."""
        if len(self.found) == 1:
            raise UserError(f"{self.name}: {self.found[0]}")
        if self.found:
            listed = " ".join(f"({n}) {problem}" for n, problem in enumerate(self.found, 1))
            raise UserError(f"{self.name}: {len(self.found)} problems: {listed}")


def _preset(path: Path, seen: tuple[Path, ...]) -> list[Layer]:
    """Return the layers of a preset file, the most distant ancestor first."""
    here = path.resolve()
    if here in seen:
        chain = " -> ".join(file.name for file in (*seen, here))
        raise UserError(f"{path}: presets extend each other in a circle", got=chain)
    tree = _parse(path)
    if "extends" not in tree:
        return [(str(path), tree)]
    parent = tree.pop("extends")
    if not isinstance(parent, str):
        raise UserError(
            f"{path}: extends is not a file name", got=parent, expected="one path, as in base.yaml"
        )
    if not (path.parent / parent).is_file():
        raise UserError(
            f"{path}: extends a file that does not exist",
            got=path.parent / parent,
            fix="the path is relative to the preset's own folder",
        )
    return [*_preset(path.parent / parent, (*seen, here)), (str(path), tree)]


def top_level_keys(path: Path) -> list[str]:
    """Return the keys of a YAML file at its top level. Raises UserError as `load_config`."""
    return list(_parse(path))


def _parse(path: Path) -> dict[str, Any]:
    """Read one YAML file whose top level is a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
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
    return _container(tree)


def _guard(text: str) -> None:
    """Raise YAMLError for nesting that is too deep and for numbers that YAML misreads."""
    depth, problem = 0, None
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        plain = isinstance(event, yaml.ScalarEvent) and not event.style
        if depth > DEPTH:
            problem = f"nested deeper than {DEPTH} levels"
        elif plain and _TRAP.fullmatch(event.value):
            problem = f"{event.value} is another number in YAML; write it in plain decimals"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _override(tree: DictConfig, item: str, problems: _Problems) -> None:
    """Set one `key=value` in `tree`."""
    key = _key_of(item)
    if not key:
        problems.add("", f"override {item!r} cannot be read; expected key=value")
        return
    text = item.partition("=")[2]
    try:
        _guard(text)
        value = _container(OmegaConf.from_dotlist(["value=" + text]))["value"]
        merge = _merges(OmegaConf.select(tree, key), value)
        OmegaConf.update(tree, key, value, merge=merge)
    # OmegaConf raises TypeError for a list index that is no number.
    except (yaml.YAMLError, OmegaConfBaseException, IndexError, TypeError) as error:
        problems.add("", f"override {item!r} cannot be applied: {_first_line(error)}")


def _merge(under: Mapping, over: Mapping) -> dict[str, Any]:
    """Return the tree `under`, updated with the tree `over`."""
    merged = {**under}
    for key, value in over.items():
        merged[key] = _merge(under[key], value) if _merges(under.get(key), value) else value
    return merged


def _merges(under: Any, over: Any) -> bool:
    """Return whether a value is merged into the one below it: a mapping is, unless it is empty."""
    # Sections below an override are of type DictConfig, which is no Mapping.
    return isinstance(under, (Mapping, DictConfig)) and isinstance(over, Mapping) and bool(over)


def _resolve(tree: DictConfig, problems: _Problems) -> Any:
    """Return plain data with `${other.key}` filled in."""
    try:
        return OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        problems.add(str(error.full_key or ""), _first_line(error))
    return problems.raise_any()


def _read(hint: Any, value: Any, path: str, problems: _Problems) -> Any:
    """Return `value` converted to the annotation `hint`, or `_BAD` after recording its problems.

    Containers are traversed here, so that every problem is found; OmegaConf converts the leaves.
    """
    inner = _inner(hint)
    if value is None and inner is not hint:
        return None
    if isinstance(inner, type) and dataclasses.is_dataclass(inner):
        return _read_dataclass(inner, value, path, problems)
    origin, args = typing.get_origin(inner), typing.get_args(inner)
    if origin is list and isinstance(value, Sequence) and not isinstance(value, str):
        items = [_read(args[0], v, _join(path, n), problems) for n, v in enumerate(value)]
        return _BAD if _BAD in items else items
    if origin is dict and isinstance(value, Mapping):
        pairs = [
            (_read_leaf(args[0], k, path, problems), _read(args[1], v, _join(path, k), problems))
            for k, v in value.items()
        ]
        return _BAD if any(_BAD in pair for pair in pairs) else dict(pairs)
    return _read_leaf(hint, value, path, problems)


def _read_dataclass(cls: type, value: Any, path: str, problems: _Problems) -> Any:
    if not isinstance(value, Mapping):
        problems.add(path, f"got {_show(value)}; expected a section of keys ({_names(cls)})")
        return _BAD
    value, renamed = _without_renamed(cls, value, path, problems)
    hints = typing.get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}
    values = {}
    for key, item in _merge(_defaults(cls), value).items():
        here = _join(path, key)
        if key not in known:
            problems.add(here, f"unknown key; {_suggest(str(key), cls)}")
        elif item == MISSING and key in renamed:  # one problem, not two, for one old key
            values[key] = _BAD
        elif item == MISSING:
            problems.add(here, f"required, but not given; expected {_describe(known[key])}")
            values[key] = _BAD
        else:
            values[key] = _read(known[key], item, here, problems)
    if _BAD in values.values():
        return _BAD
    try:
        return cls(**values)
    except (UserError, ValueError) as error:
        problems.add(path, str(error))
        return _BAD


def _without_renamed(
    cls: type, section: Mapping[str, Any], path: str, problems: _Problems
) -> tuple[dict[str, Any], set[str]]:
    """Return a section without the keys that `cls.RENAMED` lists, and the new names of those.

    Each old key is noted as a problem that names the new key.
    """
    kept, renamed = copy.deepcopy(dict(section)), set()
    for old, new in getattr(cls, "RENAMED", {}).items():
        *outer, key = old.split(".")
        holder: Any = kept
        for name in outer:
            holder = holder.get(name) if isinstance(holder, Mapping) else None
        if isinstance(holder, dict) and key in holder:
            here, there = _join(path, old), _join(path, new)
            problems.add(here, f"renamed; got {key}={_show(holder.pop(key))}; use {there}")
            renamed.add(new)
    return kept, renamed


def _read_leaf(hint: Any, value: Any, path: str, problems: _Problems) -> Any:
    slot = OmegaConf.structured(
        dataclasses.make_dataclass("Slot", [("value", hint, dataclasses.field(default=MISSING))])
    )
    # OmegaConf converts True to 1.0 and "True", and 1e-4 to "0.0001"; these are mistakes.
    lossy: tuple[type, ...] = _LOSSY.get(_inner(hint), ())
    try:
        if isinstance(value, lossy):
            raise ValueError(value)
        OmegaConf.update(slot, "value", value)
        converted = _container(slot)["value"]
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ValueError(value)
        if "\0" in str(converted):  # no path and no name may hold it
            raise ValueError(value)
        return converted
    except (OmegaConfBaseException, ValueError):
        problems.add(path, f"got {_show(value)}; expected {_describe(hint)}")
        return _BAD


def _defaults(cls: type) -> dict[str, Any]:
    """Return the defaults of a dataclass as plain data; required values are MISSING."""
    return _container(OmegaConf.structured(cls))


def _container(tree: DictConfig) -> dict[str, Any]:
    """Return a mapping of OmegaConf as plain data."""
    return cast(dict[str, Any], OmegaConf.to_container(tree))


def _inner(hint: Any) -> Any:
    """Return T of Optional[T], else the hint itself."""
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return hint
    rest = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    return rest[0] if len(rest) == 1 < len(typing.get_args(hint)) else hint


def _describe(hint: Any) -> str:
    """Return the description of an annotation for an error message."""
    inner = _inner(hint)
    if inner is not hint:
        return f"{_describe(inner)} or null"
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return f"a section of keys ({_names(hint)})"
    args = typing.get_args(hint)
    if typing.get_origin(hint) is list:
        return f"a list, each {_describe(args[0])}"
    if typing.get_origin(hint) is dict:
        return f"a mapping of names, each to {_describe(args[1])}"
    return WORDS.get(hint, str(hint))


def _suggest(key: str, cls: type) -> str:
    """Return a hint: a similar key, or the path of this key elsewhere, or all keys."""
    near = difflib.get_close_matches(key, _field_names(cls), n=1)
    if not near:
        near = [name for name in _keys(_defaults(cls)) if name.endswith(f".{key}")][:1]
    return f"did you mean {near[0]!r}?" if near else f"known keys: {_names(cls)}"


def _field_names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.init]


def _names(cls: type) -> str:
    return ", ".join(_field_names(cls))


def _keys(tree: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every section and value of a tree."""
    for key, value in tree.items():
        here = _join(path, key)
        yield here
        if isinstance(value, Mapping):
            yield from _keys(value, here)


def _key_of(item: str) -> str:
    """Return the dotted key of a `key=value` override, or '' when it has none."""
    match = re.match(r"([\w-]+(?:\.[\w-]+)*)=", item)
    return match[1] if match else ""


def _prefixes(key: str) -> set[str]:
    """Return a dotted key and the path of every section around it."""
    parts = key.split(".")
    return {".".join(parts[: n + 1]) for n in range(len(parts))}


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _show(value: object) -> str:
    return "null" if value is None else repr(value)


def _plain(value: Any) -> Any:
    """Return containers with paths as strings, so that YAML needs no Python tags."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _first_line(error: Exception) -> str:
    message = str(getattr(error, "problem", None) or error).strip()
    return message.splitlines()[0] if message else type(error).__name__
