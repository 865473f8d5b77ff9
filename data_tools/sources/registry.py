"""The registry of readers of public datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.manifest import problem_of
from data_tools.quarantine import Quarantined
from data_tools.sources.emoset import is_emoset, read_emoset
from data_tools.sources.oasis import is_oasis, read_oasis
from emosym.errors import UserError
from emosym.plugins import Registry, check_fields
from emosym.records import Sample


@dataclass(frozen=True, slots=True)
class Source:
    """A public dataset."""

    matches: Callable[[Path], bool]
    """Returns whether a folder has its layout."""
    read: Callable[[Path], Iterator[Sample | Quarantined]]
    """Yields the rows of a folder."""
    layout: str
    """Description of the layout for error messages."""


SOURCES: Registry[Source] = Registry(
    "dataset",
    {
        "emoset": Source(
            is_emoset, read_emoset, "EmoSet or AffectWorld (info.json with train/val/test.json)"
        ),
        "oasis": Source(is_oasis, read_oasis, "OASIS (OASIS.csv with images/)"),
    },
    lambda name, source: check_fields(
        f"the dataset {name!r}", source, Source, {"matches": 1, "read": 1}
    ),
)


def read_source(kind: str, root: Path) -> tuple[list[Sample], list[Quarantined]]:
    """Return the samples of a dataset and its quarantined records.

    Records are quarantined if they are invalid, could not be written to a manifest, or repeat an
    id or an image (which could put a training image into the test split).

    Args:
        kind: a key of `SOURCES`.
        root: folder of the dataset.

    Raises:
        UserError: an unknown kind, no such folder, or a folder with another layout.
    """
    source = SOURCES.look_up(kind)
    if not root.is_dir():
        raise UserError(f"no folder {root}", expected="the folder of a dataset")
    samples: list[Sample] = []
    quarantined: list[Quarantined] = []
    ids: set[str] = set()
    images: set[Path] = set()
    root = root.absolute()
    for item in source.read(root):
        if isinstance(item, Quarantined):
            quarantined.append(item)
            continue
        image = item.image.resolve()  # links to one file are the same image
        reason = problem_of(item, root)
        if reason is None and item.id in ids:
            reason = f"id {item.id!r} was already used by an earlier row"
        elif reason is None and image in images:
            reason = f"image {item.image.name!r} was already used by an earlier row"
        if reason is not None:
            name = item.image.relative_to(root).as_posix()
            quarantined.append(Quarantined(where=f"split {item.split}", record=name, reason=reason))
            continue
        ids.add(item.id)
        images.add(image)
        samples.append(item)
    return samples, quarantined
