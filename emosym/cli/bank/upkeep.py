"""`emosym bank init`, `verify`, `compact` and `rebuild`: care for a bank as a whole."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from emosym.cli.bank.options import Bank, Wait
from emosym.cli.loading import identity, load_pipeline
from emosym.console.options import DEFAULT_MODEL, AsJson, Device, Model
from emosym.console.terminal import print_facts, print_json, progress

EXIT_PROBLEMS = 2


def init(
    bank: Annotated[Path, typer.Argument(help="New folder, or a bank of an older format.")],
    model: Annotated[
        str | None, typer.Option(help=f"Model that embeds its images; default: {DEFAULT_MODEL}.")
    ] = None,
    device: Device = None,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Make an empty memory bank, or bring one of an older format up to date."""
    from memory_bank import MemoryBank

    if not (bank / "bank.sqlite").is_file():
        name = model or DEFAULT_MODEL
        width = load_pipeline(name, device).model.understander.backbone.width
        MemoryBank.create(bank, width, identity(name)).close()
    embedder = None if model is None else identity(model)
    with MemoryBank.open(bank, "a", model_hash=embedder, wait=wait) as store:
        facts = {"bank": str(bank), "version": store.version, "size": len(store)}
        facts |= {"dim": store.dim, "model_hash": store.model_hash}
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


def verify(bank: Bank, as_json: AsJson = False) -> None:
    """Check every record, image, vector, tag and index entry; exit code 2 for a problem."""
    from memory_bank import MemoryBank

    with MemoryBank.open(bank) as store, progress("verifying") as show:
        problems, version, size = store.verify(show), store.version, len(store)
    if as_json:
        print_json({"bank": str(bank), "version": version, "size": size, "problems": problems})
    else:
        print("\n".join(problems) or f"{bank}: version {version}, {size} images, all is well")
    if problems:
        raise typer.Exit(EXIT_PROBLEMS)


def compact(
    bank: Bank,
    oldest: Annotated[
        str | None,
        typer.Option(
            help="Oldest version or tag to keep; default: every tagged one and the newest."
        ),
    ] = None,
    refusals: Annotated[
        bool, typer.Option("--refusals", help="Forget the refused candidates too.")
    ] = False,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Forget for good what left a memory bank, and give the space back.

    Rollbacks reach back to the oldest version that is kept, no further.
    """
    from memory_bank import MemoryBank

    with MemoryBank.open(bank, "a", wait=wait) as store:
        before = _bytes(bank)
        forgotten = store.compact(oldest, refusals=refusals)
        after = _bytes(bank)
    facts = {**asdict(forgotten), "bytes": after, "bytes_before": before}
    if as_json:
        print_json(facts)
        return
    print(
        f"{bank}: forgot {forgotten.entries} entries and {forgotten.refusals} refusals;"
        f" {before:,} bytes are {after:,}; the oldest version is {forgotten.oldest}"
    )
    if forgotten.tags:
        print(f"tags of forgotten versions are gone: {', '.join(forgotten.tags)}")


def rebuild(
    bank: Bank,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Embed all images of a memory bank with another model; its history starts anew.

    What judges said stays as it is. Older versions and tags are forgotten.
    """
    from memory_bank import MemoryBank

    with MemoryBank.open(bank, "a", wait=wait) as store:
        tags = list(store.tags())
        pipeline = load_pipeline(model, device)
        width = pipeline.model.understander.backbone.width
        with progress("embedding", len(store)) as show:
            version = store.rebuild(pipeline.embed_images, width, identity(model), show)
        facts = {"version": version, "size": len(store), "dim": store.dim}
        facts |= {"model_hash": store.model_hash, "dropped_tags": tags}
    if as_json:
        print_json(facts)
        return
    print(f"{bank}: version {version}, {facts['size']} images, vectors of {model}")
    if tags:
        print(f"tags of forgotten versions are gone: {', '.join(tags)}")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
