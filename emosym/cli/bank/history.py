"""`emosym bank log`, `diff`, `tag`, `rollback` and `rm`: the versions of a memory bank."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from emosym.cli.bank.options import (
    Bank,
    Filters,
    Wait,
    filtered,
)
from emosym.cli.bank.printing import print_entries, record_of
from emosym.console.options import AsJson
from emosym.console.tables import print_facts, print_table
from emosym.console.terminal import print_json
from emosym.errors import UserError


def log(bank: Bank, as_json: AsJson = False) -> None:
    """Show all changes of a memory bank, including those that were rolled back."""
    from memory_bank import MemoryBank

    with MemoryBank.open(bank) as store, store.moment():
        events = [asdict(event) for event in store.events()]
    if as_json:
        print_json(events)
        return
    columns = ("time", "what", "version", "added", "removed", "refused")
    print_table(columns, [[str(event[name]) for name in columns] for event in events])


def diff(
    bank: Bank,
    old: Annotated[str, typer.Argument(help="Version or tag.")],
    new: Annotated[str | None, typer.Argument(help="Version or tag; default: the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the images that were added and removed between two versions of a memory bank."""
    from memory_bank import MemoryBank

    with MemoryBank.open(bank) as store, store.moment():
        found = store.diff(old, store.version if new is None else new)
        came = [record_of(store, entry) for entry in found.came]
        left = [record_of(store, entry) for entry in found.left]
    if as_json:
        print_json({"came": came, "left": left})
        return
    until = f"from {old} to {'the newest version' if new is None else new}"
    print_entries(came, f"{len(came)} added {until}")
    print_entries(left, f"{len(left)} removed {until}")


def tag(
    bank: Bank,
    name: Annotated[str | None, typer.Argument(help="New tag; if missing, list the tags.")] = None,
    version: Annotated[
        str | None, typer.Option(help="Version or tag to name; default: the newest.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the tag.")] = False,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Create, list or delete tags: names of versions of a memory bank."""
    from memory_bank import MemoryBank

    if name is None and (delete or version is not None):
        raise UserError("no tag to create or delete", fix="give NAME after the bank")
    if delete and version is not None:
        raise UserError("--delete and --version exclude each other", fix="give one of them")
    with MemoryBank.open(bank, "r" if name is None else "a", wait=wait) as store:
        if name is not None and delete:
            store.untag(name)
        elif name is not None:
            store.tag(name, version)
        tags = store.tags()
    if as_json:
        print_json(tags)
    else:
        print_table(("tag", "version"), [(tag, str(of)) for tag, of in tags.items()], str(bank))


def rollback(
    bank: Bank,
    version: Annotated[str | None, typer.Argument(help="Version or tag to go back to.")] = None,
    before_step: Annotated[
        int | None,
        typer.Option(help="Go back to before the first image of this training step or later."),
    ] = None,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Restore a version of a memory bank; newer versions are deleted."""
    from memory_bank import MemoryBank

    targets = [target for target in (version, before_step) if target is not None]
    if len(targets) != 1:
        raise UserError(
            "a rollback needs one target", expected="a version or tag, or --before-step STEP"
        )
    with MemoryBank.open(bank, "a", wait=wait) as store:
        before, tags = store.version, store.tags()
        before_first = None if before_step is None else store.version_before(before_step)
        now = store.rollback(targets[0] if before_first is None else before_first)
        dropped = sorted(tags.keys() - store.tags().keys())
        size = len(store)
    facts = {"version": now, "before": before, "size": size, "dropped_tags": dropped}
    if as_json:
        print_json(facts)
        return
    print(f"{bank}: version {now}, {size} images; was version {before}")
    if dropped:
        print(f"deleted tags of deleted versions: {', '.join(dropped)}")


@filtered
def rm(
    bank: Bank,
    filters: Filters,
    ids: Annotated[list[int] | None, typer.Argument(help="Ids of entries; see `ls`.")] = None,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Remove images from a memory bank, by ids, by filters, or by both.

    A rollback restores them; only `compact` deletes them for good.
    """
    from memory_bank import MemoryBank

    if not ids and not filters:
        raise UserError("no images are selected", expected="ids or filters")
    with MemoryBank.open(bank, "a", wait=wait) as store:
        for number in ids or ():
            store.entry(number)
        removed = [
            record_of(store, entry)
            for entry in store.entries(**filters)
            if not ids or entry.id in ids
        ]
        version = store.remove([record["id"] for record in removed])
        size = len(store)
    if as_json:
        print_json({"version": version, "size": size, "removed": removed})
        return
    print_entries(removed, f"{len(removed)} removed")
    print_facts({"version": version, "size": size}, title=str(bank))
