"""Entries of a memory bank as records, tables and contact sheets."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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

PREDICTED = "*"
"""Marks what the model predicted of an image of which nothing was requested or annotated."""

NONE: Mapping[str, Sequence[str]] = {}

Record = dict[str, Any]
"""An entry as JSON data."""


def record_of(bank: MemoryBank, entry: Entry) -> Record:
    """Return an entry, with the path of its image, as JSON data."""
    from memory_bank.store.image_files import image_name

    return {"image": str(bank.path / image_name(entry.sha256, entry.suffix)), **asdict(entry)}


def print_entries(
    records: Sequence[Record], title: str, measures: Mapping[str, Sequence[str]] = NONE
) -> None:
    """Print entries as a table, a line each; their other fields are told by `show` and `--json`.

    `measures` are further first columns: name -> cells.
    """
    if not records:
        print(title)
        return
    rows = [
        (
            str(record["id"]),
            str(record["source"]),
            _label(record),
            *(_affect(record, axis) for axis in ("valence", "arousal")),
            str(record["prompt"] or "-"),
        )
        for record in records
    ]
    columns = (*measures, "id", "source", "emotion", "valence", "arousal", "prompt")
    first = zip(*measures.values(), strict=True) if measures else [()] * len(rows)
    cells = [(*these, *row) for these, row in zip(first, rows, strict=True)]
    print_table(columns, cells, title=title, cut=("prompt",))
    if any(PREDICTED in cell for row in rows for cell in row[2:5]):
        print(f"{PREDICTED} predicted by the model", file=sys.stderr)


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
    if record["emotion"] is not None:
        return str(record["emotion"])
    return "-" if record["predicted"] is None else f"{record['predicted']}{PREDICTED}"


def _affect(record: Record, axis: str) -> str:
    if record[axis] is not None:
        return signed(record[axis])
    predicted = record[f"predicted_{axis}"]
    return "-" if predicted is None else f"{signed(predicted)}{PREDICTED}"
