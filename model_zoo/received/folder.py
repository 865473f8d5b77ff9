"""Check of a folder's files: they stay inside it, have a bounded size, and name no code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emosym.errors import UserError
from emosym.strict_json import BadJson, read_json
from model_zoo.received.fields import check_fields
from model_zoo.received.limits import FIX, check_layers

CODE_KEYS = ("auto_map", "custom_generate", "custom_pipeline", "custom_pipelines")
"""Keys of configurations that name code in the folder or on the hub."""
IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
"""Keys, also with `_` before them, whose value may name a repository of compiled kernels."""
OWN_IMPLEMENTATIONS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
"""Values of these keys that name code of transformers."""
ADAPTER = "adapter_config.json"
MODEL_INDEX = "model_index.json"
LARGE = {
    "tokenizer.json": 2**26,
    "vocab.json": 2**26,
    "merges.txt": 2**26,
    "vocab.txt": 2**26,
    "spiece.model": 2**26,
    "tokenizer.model": 2**26,
}
"""File -> its maximum size in bytes."""
LARGEST = 2**23
"""Maximum size of another text file that is read, in bytes."""
READ = (".json", ".jinja", ".txt", ".model")
"""Suffixes of the text files that are read; weights have the suffix .safetensors."""


def check_folder(folder: Path) -> None:
    """Check all files of a model folder; nothing of it is loaded.

    Links may lead to files of the same folder, and from a snapshot of the hub's cache into the
    `blobs` beside it.

    Raises:
        UserError: a file outside of the folder, or none at all (a pipe, a device); a text file that
            is too large; JSON that cannot be read; a configuration that names code, an adapter, or
            weights elsewhere, or has a field that `check_fields` refuses.
    """
    roots = [root := folder.resolve()]
    roots += [up.parent.parent / "blobs" for up in (root, *root.parents) if _is_snapshot(up)]
    for path in _paths(folder):
        target = path.resolve()
        if not any(target.is_relative_to(inside) for inside in roots):
            raise UserError(
                f"{path} leads out of the model folder",
                got=f"a link to {target}",
                fix="copy the file into the folder if you trust it",
            )
        if not target.is_file() and not target.is_dir():
            raise UserError(f"{path} is no file", fix="download or copy the model again")
        if target.is_file() and path.suffix in READ:
            limit = LARGE.get(path.name, LARGEST)
            if (size := target.stat().st_size) > limit:
                raise UserError(
                    f"{path} is too large", got=f"{size:,} bytes", expected=f"at most {limit:,}"
                )
            if path.suffix == ".json" and path.name not in LARGE:
                _check_json(path)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; raise UserError if it holds none."""
    value = _read(path)
    if not isinstance(value, dict):
        raise _unreadable(path, "not a JSON object")
    return value


def _read(path: Path) -> Any:
    try:
        return read_json(path.read_bytes())
    except BadJson as error:
        raise _unreadable(path, error) from error
    except OSError as error:
        raise _unreadable(path, error.strerror) from error


def _unreadable(path: Path, why: object) -> UserError:
    return UserError(
        f"the model in {path.parent} cannot be loaded",
        got=f"{path.name}: {why}",
        fix=FIX,
    )


def _check_json(path: Path) -> None:
    if path.name == ADAPTER:
        raise UserError(
            f"{path} belongs to an adapter, not to a model",
            expected="a model whose weights are complete",
            fix="merge the adapter into its base model first",
        )
    value = _read(path)
    for key, named in _names_of_code(value):
        raise _runs_code(path, f"{key}: {named}")
    check_fields(path, value)
    if path.name == "config.json":
        check_layers(path, value)
    fields = value if isinstance(value, dict) else {}
    if path.name == MODEL_INDEX:
        for name, entry in fields.items():
            library = entry[0] if isinstance(entry, list) and entry else None
            files = [path.parent / f"{library}.py", path.parent / name / f"{library}.py"]
            if isinstance(library, str) and any(file.exists() for file in files):
                raise _runs_code(path, f"{name}: {entry}")
    if path.name.endswith(".index.json"):
        weights = fields.get("weight_map")
        for name in weights.values() if isinstance(weights, dict) else ():
            if not isinstance(name, str) or Path(name).name != name:
                raise UserError(
                    f"{path} names weights outside of its folder",
                    got=repr(name),
                    expected="the name of a file beside it",
                )


def _names_of_code(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys, at any depth, that name code which does not belong to a library."""
    if isinstance(value, dict):
        for key, inner in value.items():
            plain = key.lstrip("_")
            if key in CODE_KEYS and inner:
                yield key, inner
            elif plain in IMPLEMENTATIONS:
                named = list(inner.values()) if isinstance(inner, dict) else [inner]
                if any(one is not None and one not in OWN_IMPLEMENTATIONS for one in named):
                    yield key, inner
            elif key == "_class_name" and not (inner is None or str(inner).isidentifier()):
                yield key, inner
            else:
                yield from _names_of_code(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names_of_code(inner)


def _runs_code(path: Path, got: str) -> UserError:
    return UserError(
        f"{path} asks to run code that comes with the model",
        got=got[:200],
        expected="a model whose classes are part of transformers or diffusers",
        fix="remove the entry if the model works without it: EmoSym runs no code of a model",
    )


def _paths(folder: Path) -> Iterator[Path]:
    """Yield all files and folders below a folder; linked folders are not entered."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in sorted(folders + files))


def _is_snapshot(folder: Path) -> bool:
    """Return whether a folder is a snapshot in the cache of the hub."""
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
