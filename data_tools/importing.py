"""Importing a public dataset: manifest, images, and a list of the rows that were quarantined."""

from __future__ import annotations

import dataclasses
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
from emosym.pictures.formats import SUFFIXES
from emosym.pictures.loading import UnreadableImage, check_image
from emosym.records import Sample
from emosym.strict_json import to_json


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
    ignored: tuple[str, ...] = ()
    """`image: what of it is ignored` of imported images, see `load_image`."""
    unlisted: tuple[str, ...] = ()
    """Images in the source that no row names; they are not imported."""


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
        unlisted = sorted(_images_of(root) - {row.image for row in samples})
        imported: list[Sample] = []
        ignored: list[str] = []
        for done, sample in enumerate(samples, start=1):
            name = sample.image.relative_to(root).as_posix()
            try:
                ignored += [f"{name}: {what}" for what in check_image(sample.image)]
            except UnreadableImage as error:
                quarantined.append(Quarantined(where=name, record=sample.id, reason=error.reason))
            else:
                image = stage / _target(sample.image.relative_to(root))
                if image.exists():  # writing would change the source through the hard link
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
                file.write(to_json(dataclasses.asdict(item)) + "\n")
    return ImportReport(
        imported=len(imported),
        quarantined=len(quarantined),
        by_split=dict(Counter(sample.split for sample in imported)),
        by_emotion=dict(Counter(sample.emotion or "unlabelled" for sample in imported)),
        ignored=tuple(ignored),
        unlisted=tuple(path.relative_to(root).as_posix() for path in unlisted),
    )


def _images_of(root: Path) -> set[Path]:
    """Return all images below a folder that are not hidden."""
    return {
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


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
