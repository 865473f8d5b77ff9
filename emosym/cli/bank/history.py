"""`emosym bank log`, `diff`, `tag`, `rollback` and `rm`: how a bank changes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from emosym.cli.bank.options import (
    Bank,
    Only,
    Wait,
    filtered,
)
from emosym.cli.bank.printing import print_entries, record_of
from emosym.console.options import AsJson
from emosym.console.terminal import print_facts, print_json, print_table
from emosym.errors import UserError


def log(bank: Bank, as_json: AsJson = False) -> None:
    """Show all that ever changed a memory bank, also what was rolled back since."""
    from memory_bank import MemoryBank

    with MemoryBank.open(bank) as store:
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
    """Show which images came and left between two versions of a memory bank."""
    from memory_bank import MemoryBank

    with MemoryBank.open(bank) as store:
        found = store.diff(old, store.version if new is None else new)
        came, left = (
            [record_of(store, entry) for entry in entries] for entries in (found.came, found.left)
        )
    if as_json:
        print_json({"came": came, "left": left})
        return
    until = f"from {old} to {'the newest version' if new is None else new}"
    print_entries(came, f"{len(came)} came {until}")
    print_entries(left, f"{len(left)} left {until}")


def tag(
    bank: Bank,
    name: Annotated[str | None, typer.Argument(help="New tag; without one, list them.")] = None,
    version: Annotated[
        str | None, typer.Option(help="What to name: a version or tag; default: the newest.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the tag.")] = False,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Name a version of a memory bank, or list or delete such names."""
    from memory_bank import MemoryBank

    if name is None and (delete or version is not None):
        raise UserError("a tag to make or delete needs a name", fix="give NAME after the bank")
    if delete and version is not None:
        raise UserError("--delete and --version", fix="give one of them")
    with MemoryBank.open(bank, "r" if name is None else "a", wait=wait) as store:
        if delete:
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
        typer.Option(help="Go back to before anything of this training step or a later one came."),
    ] = None,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Restore a memory bank as it was at a version; everything newer is forgotten."""
    from memory_bank import MemoryBank

    if (version is None) == (before_step is None):
        raise UserError("where to go back to", expected="a version or tag, or --before-step STEP")
    with MemoryBank.open(bank, "a", wait=wait) as store:
        before, tags = store.version, store.tags()
        now = store.rollback(store.version_before(before_step) if version is None else version)
        dropped = sorted(tags.keys() - store.tags().keys())
        size = len(store)
    facts = {"version": now, "before": before, "size": size, "dropped_tags": dropped}
    if as_json:
        print_json(facts)
        return
    print(f"{bank}: version {now}, {size} images; was version {before}")
    if dropped:
        print(f"tags of forgotten versions are gone: {', '.join(dropped)}")


@filtered
def rm(
    bank: Bank,
    only: Only,
    ids: Annotated[list[int] | None, typer.Argument(help="Ids of entries; see `ls`.")] = None,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Take images out of a memory bank: by ids, by filters, or those of the ids that filters want.

    A rollback brings them back; only `compact` forgets them for good.
    """
    from memory_bank import MemoryBank

    if not ids and not only:
        raise UserError("nothing says which images", expected="ids or filters")
    with MemoryBank.open(bank, "a", wait=wait) as store:
        for number in ids or ():
            store.entry(number)
        gone = [
            record_of(store, entry) for entry in store.entries(**only) if not ids or entry.id in ids
        ]
        version = store.remove([record["id"] for record in gone])
        size = len(store)
    if as_json:
        print_json({"version": version, "size": size, "removed": gone})
        return
    print_entries(gone, f"{len(gone)} taken out")
    print_facts({"version": version, "size": size}, title=str(bank))
