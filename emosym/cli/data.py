"""`emosym data ...`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from emosym.cli.files import notice
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
        print(printable(f"rejected rows, with reasons: {out / 'quarantine.jsonl'}"))
    notice("ignored in images", report.ignored)
    notice("skipped, as no row names them", report.unlisted)


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
        print(printable(f"{count} images in {out}"))


@app.command()
def validate(
    path: Annotated[Path, typer.Argument(help="A manifest, or the folder of a dataset.")],
    model: Annotated[
        str | None,
        typer.Option(help="A model, by name or folder: check the lengths of prompts too."),
    ] = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Check every row and every image of a dataset, and with --model the length of every prompt.

    Each problem is one line: `file:line: field: reason`. A dataset without problems can be trained
    on.

    The exit code is 0 for a valid dataset and 2 for one with problems.
    """
    from data_tools.dataset import MANIFEST, validate_dataset
    from data_tools.files.paths import has_file

    if has_file(path / MANIFEST):
        path = path / MANIFEST
    check_text = None if model is None else length_check(model)
    with progress("checking") as show:
        problems = validate_dataset(path, show, check_text)
    count = sum(not problem.usable for problem in problems)
    if as_json:
        found = [asdict(problem) | {"file": str(problem.file)} for problem in problems]
        print_json({"manifest": str(path), "valid": not count, "problems": found})
    else:
        for problem in problems:
            print(printable(str(problem)))
        if not count:
            print(printable(f"{path} is valid"))
    if count:
        plural = "s" if count > 1 else ""
        raise UserError(f"{path} has {count} problem{plural}", fix="correct the lines listed")


def length_check(model: str) -> Callable[[str], str | None]:
    """Return a function: a prompt -> why the decoder of a model cannot read it, or None."""
    from model_zoo.quiet import quiet_libraries

    quiet_libraries()
    from model_zoo import zoo

    tokenizers = zoo.prompt_tokenizers(model)

    def check(prompt: str) -> str | None:
        (count,) = tokenizers.count([prompt])
        if count <= tokenizers.window:
            return None
        return (
            f"{count} tokens, more than the {tokenizers.window} that {model} reads; shorten it, or"
            " train with data.long_prompts=truncate"
        )

    return check


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
