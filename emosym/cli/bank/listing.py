"""`emosym bank ls`, `show` and `stats`: the contents of a memory bank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from emosym.cli.bank.options import (
    At,
    Bank,
    Filters,
    Sheet,
    filtered,
)
from emosym.cli.bank.printing import check_sheet, print_entries, record_of, write_sheet
from emosym.console.options import AsJson
from emosym.console.tables import print_facts, print_table
from emosym.console.terminal import print_json


@filtered
def ls(
    bank: Bank,
    filters: Filters,
    at: At = None,
    sheet: Sheet = None,
    as_json: AsJson = False,
) -> None:
    """List the images of a memory bank that match all filters."""
    from memory_bank import MemoryBank

    check_sheet(sheet)
    with MemoryBank.open(bank) as store, store.moment(at):
        version = store.version
        records = [record_of(store, entry) for entry in store.entries(**filters)]
    if sheet is not None:
        write_sheet(sheet, records)
    if as_json:
        print_json(records)
    else:
        print_entries(records, f"{bank}: version {version}, {len(records)} images")


def show(
    bank: Bank,
    ids: Annotated[list[int], typer.Argument(help="Ids of entries; see `ls`.")],
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Show all fields of some images of a memory bank."""
    from memory_bank import MemoryBank

    with MemoryBank.open(bank) as store, store.moment(at):
        records = [record_of(store, store.entry(number)) for number in ids]
    if as_json:
        print_json(records)
        return
    for record in records:
        facts = {name: value for name, value in record.items() if value not in (None, {})}
        print_facts(facts, title=f"{bank}: entry {record['id']}")


def stats(bank: Bank, at: At = None, as_json: AsJson = False) -> None:
    """Show statistics of a memory bank."""
    from memory_bank import MemoryBank

    with MemoryBank.open(bank) as store, store.moment(at):
        found: Mapping[str, Any] = store.stats()
    if as_json:
        print_json({"bank": str(bank), **found})
        return
    numbers = {key: value for key, value in found.items() if not isinstance(value, dict)}
    print_facts(numbers, title=str(bank))
    counts, synthetic = found["by_emotion"], found["by_emotion_synthetic"]
    print_table(
        ("emotion", "images", "synthetic"),
        [(name, str(count), str(synthetic[name])) for name, count in counts.items()],
    )
