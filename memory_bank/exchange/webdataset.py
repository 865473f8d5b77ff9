"""A WebDataset tar: per sample an image, a JSON file and a NumPy file with the same key.

A tar of a folder export (`folder.py`) is read as well. Other programs write members as `./NAME`, in
any order, with entries for folders, and with hidden files of their own, which are left out.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from tokenize import TokenError

import numpy as np

from emosym.errors import UserError
from emosym.strict_json import read_json
from memory_bank.exchange import folder
from memory_bank.exchange.items import Item

_NAME = re.compile(r"([A-Za-z0-9_-]+)\.(png|jpg|json|npy)")
_END = 2 * tarfile.BLOCKSIZE
"""Zero bytes that end every tar."""
_OVERSIZED = (MemoryError, OverflowError)
"""Errors from headers that announce more bytes than there are."""
_PARTS = ({"png", "json", "npy"}, {"jpg", "json", "npy"})

Members = dict[str, tarfile.TarInfo]
"""Path in the tar, without `./` -> file."""


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
    """Yield items from a tar, without unpacking it, in the order of their first files.

    Raises `UserError` for a member that is neither a folder nor a regular file inside the archive,
    a file that is not of a sample, and a sample that lacks one of its three files.
    """
    _check_end(path)
    try:
        with tarfile.open(path, "r:") as tar:
            members = _members(tar)
            if (lines := members.get(folder.METADATA)) is not None:
                yield from folder.read_lines(
                    io.BytesIO(_bytes(tar, lines)), lambda name: _image(tar, members, name)
                )
                return
            for key, parts in _samples(members).items():
                yield _item(key, {suffix: _bytes(tar, one) for suffix, one in parts.items()})
    except (tarfile.TarError, ValueError, *_OVERSIZED) as error:
        reason = str(error) or "a size beyond its end"
        raise UserError("not a readable tar", got=reason, fix="copy or export it again") from error


def _members(tar: tarfile.TarFile) -> Members:
    """Return the files of a tar; leave out folders and hidden files."""
    members: Members = {}
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError("a member outside the archive", got=repr(member.name))
        if member.isdir() or any(part.startswith(".") for part in path.parts):
            continue
        if not member.isreg() or member.issparse():
            raise UserError(
                "a member that is no plain file",
                got=repr(member.name),
                fix="pack the files themselves: tar --dereference --hard-dereference",
            )
        if str(path) in members:
            raise UserError("a file that occurs twice", got=repr(member.name))
        members[str(path)] = member
    return members


def _samples(members: Members) -> dict[str, Members]:
    """Return the files of each sample by their suffix."""
    samples: dict[str, Members] = {}
    for name, member in members.items():
        match = _NAME.fullmatch(PurePosixPath(name).name)
        if match is None:
            raise UserError(
                "a file that belongs to no sample",
                got=repr(name),
                expected="KEY.png or .jpg, KEY.json and KEY.npy",
                fix=f"leave it out, or pack a folder with {folder.METADATA} at its top",
            )
        key = str(PurePosixPath(name).with_suffix(""))
        samples.setdefault(key, {})[match[2]] = member
    return samples


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    if stream is None:
        raise UserError("a member without contents", got=repr(member.name))
    return stream.read()


def _image(tar: tarfile.TarFile, members: Members, name: str) -> bytes:
    if name not in members:
        raise UserError(f"no such image: {name}", expected="a file of the archive")
    return _bytes(tar, members[name])


def _check_end(path: Path) -> None:
    """Refuse a truncated tar: cut between two members, it would pass as a shorter one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _END, 0))
        if file.read() != bytes(_END):
            raise UserError(
                f"{path} is no tar, or a truncated one",
                got="no end of archive",
                fix="copy or export it again",
            )


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
