"""Configurations: dataclass defaults, then `base`, then a YAML preset, then `key=value` overrides.

Later values win. A preset may extend another one (`extends: other.yaml`, relative to its folder).
Sections merge key by key. Scalars, lists, mappings of names to values and an empty mapping (`{}`)
replace. Numbers are finite. Nothing is read from the environment or from other keys. The result is
a plain dataclass, never a DictConfig.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emosym.errors import UserError
from emosym.yaml_text import DEPTH, parse_value, read_yaml

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
_SECRET = re.compile(
    r"key(?!word|frame|point)|token(?!s|iz)|secret|passw|bearer|auth(?!ors?\b)|credential|://[^/\s]*@",
    re.IGNORECASE,
)
"""Names of options that EmoSym does not have: a configuration is printed, saved and shared.
Numbers of `tokens` are none."""


def load_config(
    cls: type[Config],
    source: Path | None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Return `cls` filled from `base`, then the preset `source`, then `overrides`, in this order.

    An override is `section.key=value`. The value is everything after the first `=`: where text or a
    path is expected it is taken as it is, else it is YAML. A list item is `phases.0.steps=3`, an
    entry of a mapping `weights.affect=0.5`.

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
    tree: Any = _defaults(cls)
    for _, layer in layers:
        tree = _merged(cls, tree, layer) if layer else tree
    tree = copy.deepcopy(tree)  # overrides change it in place
    for item in overrides:
        _override(cls, tree, item, problems)
    config = _read(cls, tree, "", problems)
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
        self.layers += [(_shown(item), _prefixes(_key_of(item))) for item in overrides]
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
    if len(seen) >= DEPTH:
        raise UserError(f"{path}: more than {DEPTH} presets extend each other")
    tree = read_yaml(path)
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
    return list(read_yaml(path))


def _override(cls: type, tree: dict[str, Any], item: str, problems: _Problems) -> None:
    """Set one `key=value` in `tree`, the values of `cls`."""
    key = _key_of(item)
    if not key:
        problems.add("", f"{_shown(item)} cannot be read; expected key=value")
        return
    *outer, last = key.split(".")
    hint = _hint_at(cls, key)
    try:
        value = _override_value(hint, item.partition("=")[2])
        holder: Any = tree
        for depth, name in enumerate(outer):
            holder = _child(holder, name, ".".join(outer[:depth]))
        if isinstance(holder, list):
            holder[_index(holder, last, ".".join(outer))] = value
        else:
            holder[last] = _merged(hint, holder.get(last), value)
    except ValueError as error:
        why = "it is not such a value" if _SECRET.search(item) else error  # which may quote it
        problems.add("", f"{_shown(item)} cannot be applied: {why}")


def _override_value(hint: Any, text: str) -> Any:
    """Return the value of an override: the text itself where text is expected, else its YAML.

    A shell has removed the quotes already, so `data.path=/a #1: b` is a path with these characters.
    Raises ValueError for a text that cannot be read.
    """
    inner = _inner(hint)
    if text == "null" and inner is not hint:
        return None
    names = typing.get_args(inner) if typing.get_origin(inner) is Literal else (inner,)
    verbatim = all(name in (str, Path) or isinstance(name, str) for name in names)
    return text if verbatim else parse_value(text)


def _hint_at(cls: type, key: str) -> Any:
    """Return the annotation of a dotted key; `Any` where nothing is known of it."""
    hint: Any = cls
    for name in key.split("."):
        hint = _inner(hint)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            hint = typing.get_type_hints(hint).get(name, Any)
        elif origin in (list, dict):
            hint = args[-1]
        else:
            return Any
    return hint


def _child(holder: Any, name: str, path: str) -> Any:
    """Return the container `name` of a container; an empty section is put where none is."""
    place: Any = _index(holder, name, path) if isinstance(holder, list) else name
    child = holder[place] if isinstance(holder, list) else holder.get(place)
    if not isinstance(child, (dict, list)):
        child = holder[place] = {}
    return child


def _index(items: list, name: str, path: str) -> int:
    """Return the place of a list that a dotted key names; raise ValueError for none."""
    if name.isdecimal() and int(name) < len(items):
        return int(name)
    known = ", ".join(f"{path}.{number}" for number in range(len(items))) or "none"
    raise ValueError(f"{path} has no item {name}; it has {known}")


def _merged(hint: Any, under: Any, over: Any) -> Any:
    """Return the value `over`, of annotation `hint`, put over the value `under`.

    Sections merge: dataclasses, and the options of a class that another option names
    (`dict[str, Any]`). A mapping of names to values replaces as a whole, and so does an empty one.
    """
    hint = _inner(hint)
    known = isinstance(hint, type) and dataclasses.is_dataclass(hint)
    section = known or hint is Any or typing.get_args(hint) == (str, Any)
    if not (section and isinstance(under, Mapping) and isinstance(over, Mapping) and over):
        return over
    hints = typing.get_type_hints(hint) if known else {}
    values = {key: _merged(hints.get(key, Any), under.get(key), over[key]) for key in over}
    return {**under, **values}


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
        problems.add(path, f"got {_show(path, value)}; expected a section of keys ({_names(cls)})")
        return _BAD
    value, renamed = _without_renamed(cls, value, path, problems)
    hints = typing.get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}
    values = {}
    for key, item in _merged(cls, _defaults(cls), value).items():
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
        problems.add(path, _masked(str(error), values))
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
            problems.add(here, f"renamed; got {key}={_show(here, holder.pop(key))}; use {there}")
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
        if "${" in str(converted):  # OmegaConf would read it from the environment, or another key
            problems.add(
                path, f"got {_show(path, value)}; ${{...}} is not supported: write the value"
            )
            return _BAD
        return converted
    except (OmegaConfBaseException, ValueError):
        problems.add(path, f"got {_show(path, value)}; expected {_describe(hint)}")
        return _BAD


def _defaults(cls: type) -> dict[str, Any]:
    """Return the defaults of a dataclass as plain data; required values are MISSING."""
    return _container(OmegaConf.structured(cls))


def _container(tree: Any) -> dict[str, Any]:
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
    if not near and _SECRET.search(key):
        return "keys are read from environment variables only, as EMOSYM_JUDGE_KEY of judges"
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


def _shown(item: str) -> str:
    """Return an override for a message, without its value where that may hold a secret."""
    if not _SECRET.search(item):
        return f"override {item!r}"
    key = _key_of(item)
    return f"override {f'{key}=***' if key else '***'!r}"


def _prefixes(key: str) -> set[str]:
    """Return a dotted key and the path of every section around it."""
    parts = key.split(".")
    return {".".join(parts[: n + 1]) for n in range(len(parts))}


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _show(path: str, value: object) -> str:
    """Return a value for a message: `***` where its key or a name inside it is that of a secret."""
    text = "null" if value is None else repr(value)
    return "***" if _SECRET.search(f"{path} {text}") else text


def _masked(message: str, values: Mapping[str, Any]) -> str:
    """Return the message of a section's own check, with `***` for the values of secret names."""
    for name, value in values.items():
        if _SECRET.search(name) and isinstance(value, (str, Path)) and str(value):
            message = message.replace(str(value), "***")
    return message


def _plain(value: Any) -> Any:
    """Return containers with paths as strings, so that YAML needs no Python tags."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
