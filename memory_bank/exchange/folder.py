"""A folder of images with `metadata.jsonl`, as `datasets` loads it (`imagefolder`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from emosym.errors import UserError
from emosym.strict_json import read_json
from memory_bank.exchange.items import Item

METADATA = "metadata.jsonl"


def write(folder: Path, items: Iterable[Item]) -> None:
    """Write images and one line of metadata per image into a new folder."""
    folder.mkdir()
    with (folder / METADATA).open("w", encoding="utf-8") as lines:
        for item in items:
            name = f"images/{item.name[:2]}/{item.name}"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(item.image)
            # Every float32 equals a float64, so the vector is read back exactly.
            record = {"file_name": name, **item.record, "embedding": item.vector.tolist()}
            lines.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def read(folder: Path) -> Iterator[Item]:
    """Yield items line by line.

    Raises `UserError` without metadata, for a line that is no record and for a file outside the
    folder.
    """
    if not (folder / METADATA).is_file():  # reading a pipe could block forever
        raise UserError(f"no {METADATA} in {folder}")
    with (folder / METADATA).open(encoding="utf-8") as lines:
        for line in lines:
            try:
                record: Any = read_json(line)
                name, vector = record.pop("file_name"), np.array(record.pop("embedding"))
                if not isinstance(name, str) or "\0" in name or vector.dtype.kind not in "fi":
                    raise ValueError("no name in file_name or no numbers in embedding")
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise UserError("a line that is no record", got=error) from error
            yield Item(record, _inside(folder, name).read_bytes(), vector, name)


def _inside(folder: Path, name: str) -> Path:
    """Return the file of this name; raise UserError when it is not inside the folder."""
    path = PurePosixPath(name)
    root = folder.resolve()
    if path.is_absolute() or ".." in path.parts or (root / path).resolve() != root / path:
        raise UserError(
            "a path that leaves the folder", got=name, expected=f"a file below {folder}"
        )
    if not (root / path).is_file():
        raise UserError(f"no such image: {name}", expected=f"a file below {folder}")
    return root / path
