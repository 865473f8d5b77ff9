"""A folder of images with `metadata.jsonl`, as `datasets` loads it (`imagefolder`)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from emosym.errors import UserError
from emosym.strict_json import read_json
from memory_bank.confined import MAX_BYTES, Misplaced, open_file, read_file
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
    folder, also if a link leads there.
    """
    try:
        lines = os.fdopen(open_file(folder, METADATA), "rb")
    except FileNotFoundError as error:
        raise UserError(
            f"no {METADATA} in {folder}", fix="give what `emosym bank export` wrote"
        ) from error
    with lines:
        yield from read_lines(lines, lambda name: _image(folder, name))


def read_lines(lines: BinaryIO, image: Callable[[str], bytes]) -> Iterator[Item]:
    """Yield the items of metadata; `image` returns the file of a relative path without `..`.

    Raises `UserError` as `read`, and what `image` raises.
    """
    while line := lines.readline(MAX_BYTES):
        try:
            record: Any = read_json(line.decode())
            name, vector = record.pop("file_name"), np.array(record.pop("embedding"))
            if not isinstance(name, str) or "\0" in name or vector.dtype.kind not in "fi":
                raise ValueError("no name in file_name or no numbers in embedding")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError("a line that is no record", got=error) from error
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(
                "a path that leaves the export", got=name, expected="a file of the export"
            )
        yield Item(record, image(str(path)), vector, name)


def _image(folder: Path, name: str) -> bytes:
    try:
        return read_file(folder, name)
    except Misplaced as error:
        raise UserError("not an image of the export", got=error) from error
    except OSError as error:
        raise UserError(
            f"no such image: {name}", got=error.strerror, expected=f"a file below {folder}"
        ) from error
