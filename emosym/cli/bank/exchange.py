"""`emosym bank export` and `import`."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from emosym.cli.bank.options import (
    At,
    Bank,
    Filters,
    Wait,
    filtered,
)
from emosym.console.options import AsJson
from emosym.console.progress import progress
from emosym.console.terminal import print_json


@filtered
def export(
    bank: Bank,
    out: Annotated[
        Path,
        typer.Argument(help="New file NAME.parquet or NAME.tar (WebDataset), or a new folder."),
    ],
    filters: Filters,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Export images of a memory bank with all their fields, for other tools and banks.

    A folder gets the images and `metadata.jsonl`, which the library `datasets` loads.
    """
    from memory_bank import MemoryBank
    from memory_bank.exchange import export_bank

    with MemoryBank.open(bank) as store, store.moment(at), progress("exporting") as show:
        count = export_bank(store, out, show, **filters)
    if as_json:
        print_json({"out": str(out), "count": count})
    else:
        print(f"{count} images in {out}")


def import_(
    bank: Annotated[Path, typer.Argument(help="Folder of the memory bank; created if missing.")],
    source: Annotated[Path, typer.Argument(help="Output of `emosym bank export`.")],
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Import an export into a memory bank of the same model; on an error nothing is imported."""
    from memory_bank import MemoryBank
    from memory_bank.exchange import embedder_of, import_bank

    made = not bank.is_file() and not (bank.is_dir() and any(bank.iterdir()))
    if made:
        MemoryBank.create(bank, *embedder_of(source)).close()
    try:
        with MemoryBank.open(bank, "a", wait=wait) as store, progress("importing") as show:
            taken = import_bank(store, source, show)
            size = len(store)
    except BaseException:
        if made:
            shutil.rmtree(bank.resolve())  # the folder, not a link to it
        raise
    if as_json:
        print_json({"bank": str(bank), "size": size, **asdict(taken)})
        return
    print(f"{bank}: version {taken.version}, {size} images; {taken.admitted} added")
    if taken.refused:
        print(f"{taken.refused} were in the bank already")
