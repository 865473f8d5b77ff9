"""`emosym data ...`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from emosym.console.options import MOST_IMAGES, AsJson, Plugins
from emosym.console.progress import progress
from emosym.console.tables import print_facts, print_table
from emosym.console.terminal import print_json
from emosym.errors import UserError, printable

app = typer.Typer(help="Import, generate, check and count datasets.", no_args_is_help=True)

New = Annotated[Path, typer.Argument(help="New folder; on an error it is not created.")]


@app.command("import")
def import_(
    kind: Annotated[
        str, typer.Argument(help="Layout of the source: emoset, oasis, or one of a plugin.")
    ],
    src: Annotated[Path, typer.Argument(help="Folder of the published dataset.")],
    out: New,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Import a public dataset: write a manifest, its images, and a list of rejected rows."""
    from data_tools.importing import import_dataset

    with progress("importing") as show:
        report = import_dataset(kind, src, out, show)
    if as_json:
        print_json({"manifest": str(out / "manifest.jsonl"), **asdict(report)})
        return
    print_facts(
        {"imported": report.imported, "rejected": report.quarantined, **report.by_split},
        title=str(out / "manifest.jsonl"),
    )
    if report.quarantined:
        print(f"rejected rows, with reasons: {out / 'quarantine.jsonl'}")


@app.command()
def world(
    out: New,
    count: Annotated[int, typer.Option(max=MOST_IMAGES, help="Number of images.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same dataset.")] = 0,
    size: Annotated[int, typer.Option(max=4096, help="Side of the images in pixels.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Generate AffectWorld, a synthetic dataset with exact labels, in EmoSet's layout."""
    from data_tools.affectworld.world import write_world

    with progress("drawing", count) as show:
        write_world(out, count, seed, size, show)
    if as_json:
        print_json({"dataset": str(out), "count": count, "seed": seed, "size": size})
    else:
        print(f"{count} images in {out}")


@app.command()
def validate(
    manifest: Annotated[Path, typer.Argument(help="A manifest.jsonl, or its folder.")],
    as_json: AsJson = False,
) -> None:
    """Check every line and every image of a manifest.

    Each problem is one line: `file:line: field: reason`.

    The exit code is 0 for a valid manifest and 2 for one with problems.
    """
    from data_tools.manifest import validate_manifest

    path = manifest / "manifest.jsonl" if manifest.is_dir() else manifest
    with progress("checking") as show:
        problems = validate_manifest(path, show)
    if as_json:
        found = [asdict(problem) | {"file": str(problem.file)} for problem in problems]
        print_json({"manifest": str(path), "valid": not problems, "problems": found})
    else:
        print(
            "\n".join(printable(str(each)) for each in problems) if problems else f"{path} is valid"
        )
    if problems:
        plural = "s" if len(problems) > 1 else ""
        raise UserError(
            f"{path} has {len(problems)} problem{plural}", fix="correct the lines listed"
        )


@app.command()
def stats(
    path: Annotated[Path, typer.Argument(help="A manifest, or the folder of a dataset.")],
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Count a dataset by split, emotion and task, with statistics of valence and arousal."""
    from data_tools.dataset import dataset_stats, open_dataset

    found: Mapping[str, Any] = dataset_stats(open_dataset(path))
    if as_json:
        print_json(found)
        return
    splits = list(found["splits"])
    labels = sorted({label for counts in found["emotions"].values() for label in counts})
    rows = [
        (label, *(str(found["emotions"][split].get(label, 0)) for split in splits))
        for label in labels
    ]
    rows.append(("all", *(str(found["splits"][split]) for split in splits)))
    print_table(("emotion", *splits), rows, title=str(path))
    names = [name for name in ("valence", "arousal", "dominance") if name in found]
    keys = ("count", "mean", "std", "min", "max")
    if names:
        rows = [(name, *(f"{found[name][key]:.4g}" for key in keys)) for name in names]
        print_table(("affect", *keys), rows)
    rows = [(task, str(count)) for task, count in found["questions"].items()]
    print_table(("task", "questions"), rows)
