"""A WebDataset tar: per sample an image, a JSON file and a NumPy file with the same key."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from tokenize import TokenError

import numpy as np

from emosym.errors import UserError
from emosym.strict_json import read_json
from memory_bank.exchange.items import Item

_NAME = re.compile(r"([A-Za-z0-9_-]+)\.(png|jpg|json|npy)")
_END = 2 * tarfile.BLOCKSIZE
"""Zero bytes that end every tar."""
_OVERSIZED = (MemoryError, OverflowError)
"""Errors from headers that announce more bytes than there are."""
_PARTS = ({"png", "json", "npy"}, {"jpg", "json", "npy"})


def write(path: Path, items: Iterable[Item]) -> None:
    """Write a tar; equal items give equal bytes."""
    with tarfile.open(path, mode="w") as tar:
        for item in items:
            key, _, suffix = item.name.partition(".")
            buffer = io.BytesIO()
            np.save(buffer, item.vector, allow_pickle=False)
            record = json.dumps(item.record, ensure_ascii=False, allow_nan=False).encode()
            members = ((suffix, item.image), ("json", record), ("npy", buffer.getvalue()))
            for kind, data in members:
                member = tarfile.TarInfo(f"{key}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def read(path: Path) -> Iterator[Item]:
    """Yield items from a tar, without unpacking it.

    Raises `UserError` for a member that is no regular file with a valid name, and a sample that
    lacks one of its three files or has one twice.
    """
    key = ""
    parts: dict[str, bytes] = {}
    _check_end(path)
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                match = _NAME.fullmatch(member.name)
                if match is None or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    raise UserError(
                        "a member that is no file of a sample",
                        got=repr(member.name),
                        expected="KEY.png or .jpg, KEY.json and KEY.npy",
                    )
                if parts and match[1] != key:
                    yield _item(key, parts)
                    parts = {}
                key = match[1]
                if match[2] in parts:
                    raise UserError("a file that occurs twice", got=member.name)
                stream = tar.extractfile(member)
                if stream is None:
                    raise UserError("a member without contents", got=member.name)
                parts[match[2]] = stream.read()
            if parts:
                yield _item(key, parts)
    except (tarfile.TarError, ValueError, *_OVERSIZED) as error:
        reason = str(error) or "a size beyond its end"
        raise UserError("not a readable tar", got=reason) from error


def _check_end(path: Path) -> None:
    """Refuse a truncated tar: cut between two members, it would pass as a shorter one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _END, 0))
        if file.read() != bytes(_END):
            raise UserError(f"{path} is a truncated tar", got="no end of archive")


def _item(key: str, parts: dict[str, bytes]) -> Item:
    if set(parts) not in _PARTS:
        raise UserError(
            f"the sample {key} is incomplete", got=sorted(parts), expected="image, json and npy"
        )
    suffix = "png" if "png" in parts else "jpg"
    try:
        record = read_json(parts["json"].decode())
        if not isinstance(record, dict):
            raise ValueError("no JSON object")
        vector = np.load(io.BytesIO(parts["npy"]), allow_pickle=False)
        if not isinstance(vector, np.ndarray) or vector.dtype.kind != "f":
            raise ValueError("no numbers in the NumPy file")
    except (ValueError, EOFError, OSError, *_OVERSIZED, TokenError) as error:
        raise UserError(f"the sample {key} cannot be read", got=error) from error
    return Item(record, parts[suffix], vector, f"{key}.{suffix}")
