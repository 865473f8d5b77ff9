"""Importing a public dataset: a manifest, its images, and a report of what was set aside."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_tools.images import check_image
from data_tools.manifest import write_manifest
from data_tools.quarantine import Broken, Quarantined
from data_tools.sources.registry import read_source
from data_tools.staging import staged_folder
from emosym.errors import UserError
from emosym.records import Sample


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did."""

    imported: int
    quarantined: int
    by_split: dict[str, int]
    by_emotion: dict[str, int]
    """`unlabelled` counts the samples without an emotion."""


def import_dataset(
    kind: str,
    src: Path,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Write `out/manifest.jsonl`, `out/images/` and `out/quarantine.jsonl` from a public dataset.

    Every image is decoded once; a broken one is listed in the quarantine with its reason and
    stops nothing. Images are hard links to the source where the file system allows it, else
    copies. `out` appears whole or not at all; `progress(done, rows)` is called after each row.
    Raises `UserError` for an unknown kind or layout, a non-empty `out`, or nothing to import.
    """
    root = src.absolute()
    with staged_folder(out) as stage:
        samples, quarantined = read_source(kind, src)
        imported: list[Sample] = []
        for done, sample in enumerate(samples, start=1):
            try:
                check_image(sample.image)
            except Broken as reason:
                name = sample.image.relative_to(root).as_posix()
                quarantined.append(Quarantined(where=name, record=sample.id, reason=str(reason)))
            else:
                image = stage / _target(sample.image.relative_to(root))
                if image.exists():  # writing there would write through the link to the source
                    name = sample.image.relative_to(root).as_posix()
                    reason = f"{image.relative_to(stage)} is an earlier image's place"
                    quarantined.append(Quarantined(where=name, record=sample.id, reason=reason))
                else:
                    _place(sample.image, image)
                    imported.append(dataclasses.replace(sample, image=image))
            if progress is not None:
                progress(done, len(samples))
        if not imported:
            first = f"; the first: {quarantined[0].reason}" if quarantined else ""
            raise UserError(
                f"nothing in {src} could be imported",
                got=f"{len(quarantined)} rows, all set aside{first}",
                fix="check that its images lie where its tables say",
            )
        write_manifest(stage / "manifest.jsonl", imported)
        with (stage / "quarantine.jsonl").open("w", encoding="utf-8") as file:
            for item in quarantined:
                file.write(json.dumps(dataclasses.asdict(item), ensure_ascii=False) + "\n")
    return ImportReport(
        imported=len(imported),
        quarantined=len(quarantined),
        by_split=dict(Counter(sample.split for sample in imported)),
        by_emotion=dict(Counter(sample.emotion or "unlabelled" for sample in imported)),
    )


def _target(relative: Path) -> Path:
    """Return where an image goes: its own path, under one folder `images`."""
    parts = relative.parts
    return Path("images", *(parts[1:] if parts[0] in ("image", "images") else parts))


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()  # a link to a link would break when the source moves
    try:
        os.link(real, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(real, target)
