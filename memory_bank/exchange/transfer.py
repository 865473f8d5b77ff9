"""Export and import of a bank, or of the entries that pass a filter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from emosym.errors import UserError
from emosym.files import replacing
from memory_bank.bank import MemoryBank
from memory_bank.exchange import folder, parquet, webdataset
from memory_bank.exchange.items import Item, decision_of, item_of
from memory_bank.store.database import DATABASE
from memory_bank.store.entry import Decision
from memory_bank.store.inspection import Show

FORMATS: dict[str, ModuleType] = {".parquet": parquet, ".tar": webdataset}
"""Suffix of a file -> module that writes and reads it; any other name is a folder."""
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}
"""First bytes of a compressed file -> format, program that unpacks it."""
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Imported:
    """Result of an import."""

    version: int
    admitted: int
    refused: int
    """Images that the bank held already."""


def export_bank(bank: MemoryBank, out: Path, show: Show, **conditions: Any) -> int:
    """Write live entries to `out`, in the order of their ids, and return how many.

    `out` ends in `.parquet` or `.tar` (WebDataset), or is a new folder; it is written atomically.
    `conditions` are fields of `Filter`. Raises `UserError` when `out` exists, when there is nothing
    to write, and for an image that is missing or damaged.
    """
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists", fix="give another name")
    ids = [entry.id for entry in bank.entries(**conditions)]
    if not ids:
        raise UserError(f"nothing to export from the memory bank {bank.path}", got="no entry")

    def items() -> Iterator[Item]:
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            for number, vector in zip(batch, bank.embeddings(batch), strict=True):
                entry = bank.entry(number)
                yield item_of(entry, bank.image_bytes(entry), vector, bank.model_hash)
            show(start + len(batch), len(ids))

    kind = _format(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out, many_files=kind is folder) as draft:
            kind.write(draft, items())
    except OSError as error:
        raise UserError(
            f"cannot export to {out}", got=error, fix="check free space, permissions and the bank"
        ) from error
    return len(ids)


def embedder_of(source: Path) -> tuple[int, str]:
    """Return the dimension and the embedder of an export, from its first record.

    Raises `UserError` when there is no record.
    """
    with _record_named(source, 1):
        for item in _read(source):
            return item.vector.size, str(item.record.get("embedder"))
    raise UserError(f"nothing to import from {source}", got="no record")


def import_bank(bank: MemoryBank, source: Path, show: Show) -> Imported:
    """Add what `export_bank` wrote, as one version; nothing is added from a damaged export.

    Labels, scores, vectors, reasons and origins are kept; ids and versions are this bank's. An
    image that the bank holds already is refused, and the refusal recorded.

    Raises `UserError`, with the bank unchanged, for a record that is damaged or of another embedder
    or dimension, and for a path that leaves the export.
    """

    def batches() -> Iterator[list[Decision]]:
        batch: list[Decision] = []
        items = iter(_read(source))
        number = 0
        while True:
            with _record_named(source, number + 1):
                item = next(items, None)
                if item is None:
                    break
                batch.append(decision_of(item, bank.model_hash, bank.dim))
            number += 1
            if len(batch) == _BATCH:
                yield batch
                show(number, number)
                batch = []
        if batch:
            yield batch

    admitted, refused = bank.load(batches())
    return Imported(bank.version, admitted, refused)


def _format(path: Path) -> ModuleType:
    return FORMATS.get(path.suffix.lower(), folder)


def _read(source: Path) -> Iterator[Item]:
    if not source.exists():
        raise UserError(f"no such export: {source}")
    if source.is_dir():
        if (source / DATABASE).exists():
            raise UserError(
                f"{source} is a memory bank, not an export", fix="run `emosym bank export` first"
            )
        return folder.read(source)
    if not source.is_file():  # reading a pipe could block forever
        raise UserError(f"no export: {source}", expected="a file or a folder")
    with source.open("rb") as file:
        start = file.read(len(max(_PACKED, key=len)))
    for magic, (name, unpack) in _PACKED.items():
        if start.startswith(magic):
            raise UserError(f"{source} is compressed with {name}", fix=f"first run {unpack}")
    if source.suffix.lower() not in FORMATS:
        raise UserError(
            f"no export: {source}",
            got=f"a file {source.suffix or 'without a suffix'}",
            expected=f"a folder, or a file {' or '.join(FORMATS)}",
        )
    return _format(source).read(source)


@contextmanager
def _record_named(source: Path, number: int) -> Iterator[None]:
    """Name the export and the number of the record in errors."""
    try:
        yield
    except (UserError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot import {source}: record {number}: {error}") from error
