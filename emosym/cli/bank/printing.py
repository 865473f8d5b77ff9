"""Entries of a memory bank as records, tables and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emosym.console.tables import print_table, signed
from emosym.errors import UserError
from emosym.files import write_file

if TYPE_CHECKING:
    from memory_bank import Entry, MemoryBank

MOST_PICTURES = 2000
"""Maximum number of images of a sheet, which is held in memory."""

Record = dict[str, Any]
"""An entry as JSON data."""


def record_of(bank: MemoryBank, entry: Entry) -> Record:
    """Return an entry, with the path of its image, as JSON data."""
    return {"image": str(bank.image_path(entry)), **asdict(entry)}


def print_entries(records: Sequence[Record], title: str, measure: str | None = None) -> None:
    """Print entries as a table; `measure` is the key of the first column, if any."""
    print_table(
        (
            *((measure,) if measure else ()),
            *("id", "image", "source", "emotion", "valence", "arousal", "prompt"),
        ),
        [
            (
                *((f"{record[measure]:.3f}",) if measure else ()),
                str(record["id"]),
                str(record["image"]),
                str(record["source"]),
                _label(record),
                *(_affect(record, axis) for axis in ("valence", "arousal")),
                str(record["prompt"] or "-"),
            )
            for record in records
        ],
        title=title,
    )


def check_sheet(sheet: Path | None) -> None:
    """Raise UserError for a sheet that cannot be written; called before any work."""
    if sheet is None:
        return
    if sheet.suffix.lower() != ".png":
        raise UserError("a sheet is written as PNG", got=f"--sheet {sheet}", expected="NAME.png")
    if sheet.exists():
        raise UserError(f"{sheet} exists", fix="give another --sheet")


def write_sheet(sheet: Path, records: Sequence[Record], measure: str | None = None) -> None:
    """Write a contact sheet of the images. Raises UserError for none or too many."""
    from emosym.inference.sheets import contact_sheet, sheet_png
    from emosym.pictures.loading import load_image

    if not 0 < len(records) <= MOST_PICTURES:
        raise UserError(
            "too many images for a sheet, or none",
            got=len(records),
            expected=f"1 to {MOST_PICTURES}",
            fix="use filters, or leave out --sheet",
        )
    images = [load_image(Path(str(record["image"]))).resize((224, 224)) for record in records]
    write_file(sheet, sheet_png(contact_sheet(images, [_caption(r, measure) for r in records])))


def _caption(record: Record, measure: str | None) -> str:
    lines = [f"{record['id']}: {record[measure]:.3f}" if measure else f"{record['id']}"]
    lines += [_label(record), str(record["prompt"] or "")]
    return "\n".join(line for line in lines if line)


def _label(record: Record) -> str:
    return str(record["emotion"] or f"{record['predicted'] or '-'} (predicted)")


def _affect(record: Record, axis: str) -> str:
    if record[axis] is not None:
        return signed(record[axis])
    return f"{signed(record[f'predicted_{axis}'])} (predicted)"
