"""Importing a public dataset: manifest, images, and a list of the rows that were quarantined."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_tools.files.staging import staged_folder
from data_tools.manifest import write_manifest
from data_tools.quarantine import Quarantined
from data_tools.sources.registry import read_source
from emosym.errors import UserError
from emosym.pictures.loading import UnreadableImage, check_image
from emosym.records import Sample


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The counts of an import."""

    imported: int
    """Samples in the manifest."""
    quarantined: int
    """Rows that could not be imported."""
    by_split: dict[str, int]
    """Split -> samples."""
    by_emotion: dict[str, int]
    """Emotion -> samples; `unlabelled` for samples without an emotion."""


def import_dataset(
    kind: str,
    src: Path,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Write `out/manifest.jsonl`, `out/images/` and `out/quarantine.jsonl` from a public dataset.

    Every image is decoded once; an invalid one goes to the quarantine with the reason, and the
    import continues. Images are hard-linked to the source if the file system allows it, else
    copied. `out` appears completely or not at all.

    Args:
        kind: a key of `SOURCES`.
        src: folder of the public dataset.
        out: the folder to write.
        progress: called with (rows done, all rows) after each row.

    Raises:
        UserError: an unknown kind or layout, `out` is not empty, or no row can be imported.
    """
    root = src.absolute()
    with staged_folder(out) as stage:
        samples, quarantined = read_source(kind, src)
        imported: list[Sample] = []
        for done, sample in enumerate(samples, start=1):
            try:
                check_image(sample.image)
            except UnreadableImage as error:
                name = sample.image.relative_to(root).as_posix()
                quarantined.append(Quarantined(where=name, record=sample.id, reason=error.reason))
            else:
                image = stage / _target(sample.image.relative_to(root))
                if image.exists():  # writing would change the source through the hard link
                    name = sample.image.relative_to(root).as_posix()
                    reason = f"{image.relative_to(stage)} is the target of an earlier image"
                    quarantined.append(Quarantined(where=name, record=sample.id, reason=reason))
                else:
                    _link_or_copy(sample.image, image)
                    imported.append(dataclasses.replace(sample, image=image))
            if progress is not None:
                progress(done, len(samples))
        if not imported:
            first = f"; the first: {quarantined[0].reason}" if quarantined else ""
            raise UserError(
                f"nothing in {src} could be imported",
                got=f"{len(quarantined)} rows, all quarantined{first}",
                fix="check that its images are where its tables say",
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
    """Return the path of an image in the imported dataset: its relative path, below `images/`."""
    parts = relative.parts
    return Path("images", *(parts[1:] if parts[0] in ("image", "images") else parts))


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()  # link to the file itself, not to a symbolic link
    try:
        os.link(real, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(real, target)
