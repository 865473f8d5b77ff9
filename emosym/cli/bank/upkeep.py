"""`emosym bank init`, `verify`, `compact` and `rebuild`: maintenance of a memory bank."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from emosym.cli.bank.options import Bank, Wait
from emosym.cli.loading import load_pipeline, model_hash
from emosym.console.options import DEFAULT_MODEL, AsJson, Device, Model
from emosym.console.progress import progress
from emosym.console.tables import print_facts
from emosym.console.terminal import print_json
from emosym.errors import printable

EXIT_PROBLEMS = 2


def init(
    bank: Annotated[Path, typer.Argument(help="New folder, or a memory bank of an older format.")],
    model: Annotated[
        str | None, typer.Option(help=f"Model that embeds the images; default: {DEFAULT_MODEL}.")
    ] = None,
    device: Device = None,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Create an empty memory bank, or upgrade one of an older format."""
    from memory_bank import MemoryBank

    if not (bank / "bank.sqlite").is_file():
        name = model or DEFAULT_MODEL
        width = load_pipeline(name, device).model.understander.backbone.width
        MemoryBank.create(bank, width, model_hash(name)).close()
    embedder = None if model is None else model_hash(model)
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
        print(
            "\n".join(map(printable, problems))
            or f"{bank}: version {version}, {size} images, no problems"
        )
    if problems:
        raise typer.Exit(EXIT_PROBLEMS)


def compact(
    bank: Bank,
    oldest: Annotated[
        str | None,
        typer.Option(
            help="Oldest version or tag to keep; default: all tagged versions and the newest."
        ),
    ] = None,
    refusals: Annotated[
        bool, typer.Option("--refusals", help="Delete the records of refused candidates too.")
    ] = False,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Delete removed images of a memory bank for good, and free their space.

    Rollbacks cannot go back beyond the oldest version that is kept.
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
        f"{bank}: deleted {forgotten.entries} entries and {forgotten.refusals} refusals;"
        f" {after:,} bytes, before {before:,}; the oldest version is {forgotten.oldest}"
    )
    if forgotten.tags:
        print(f"deleted tags of deleted versions: {', '.join(forgotten.tags)}")


def rebuild(
    bank: Bank,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Embed all images of a memory bank with another model.

    Judgements are kept. Older versions and tags are deleted.
    """
    from memory_bank import MemoryBank

    with MemoryBank.open(bank, "a", wait=wait) as store:
        tags = list(store.tags())
        pipeline = load_pipeline(model, device)
        width = pipeline.model.understander.backbone.width
        with progress("embedding", len(store)) as show:
            version = store.rebuild(pipeline.embed_images, width, model_hash(model), show)
        facts: dict[str, object] = {"version": version, "size": len(store), "dim": store.dim}
        facts |= {"model_hash": store.model_hash, "dropped_tags": tags}
    if as_json:
        print_json(facts)
        return
    print(f"{bank}: version {version}, {facts['size']} images, vectors of {model}")
    if tags:
        print(f"deleted tags of deleted versions: {', '.join(tags)}")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
