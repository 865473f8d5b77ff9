"""The public datasets that can be read, by name and by layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.emoset import is_emoset, read_emoset
from data_tools.oasis import is_oasis, read_oasis
from data_tools.quarantine import Quarantined
from emosym.errors import UserError, unknown
from emosym.records import Sample


@dataclass(frozen=True, slots=True)
class Source:
    """A layout: how to know it and how to read it."""

    matches: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Sample | Quarantined]]
    layout: str


SOURCES = {
    "emoset": Source(
        is_emoset, read_emoset, "EmoSet or AffectWorld (info.json with train/val/test.json)"
    ),
    "oasis": Source(is_oasis, read_oasis, "OASIS (OASIS.csv with images/)"),
}


def read_source(kind: str, root: Path) -> tuple[list[Sample], list[Quarantined]]:
    """Return a dataset's samples and what had to be set aside.

    An id or an image that comes twice is set aside the second time: in another split it would put
    training images into the test. Raises `UserError` for an unknown kind, a missing folder, or one
    of another layout.
    """
    if kind not in SOURCES:
        raise unknown("dataset", kind, SOURCES)
    if not root.is_dir():
        raise UserError(f"no folder {root}", expected="the folder of a dataset")
    samples: list[Sample] = []
    quarantined: list[Quarantined] = []
    ids: set[str] = set()
    images: set[Path] = set()
    for item in SOURCES[kind].read(root.absolute()):
        if isinstance(item, Quarantined):
            quarantined.append(item)
        elif item.id in ids or item.image in images:
            what = f"id {item.id!r}" if item.id in ids else f"image {item.image.name!r}"
            quarantined.append(
                Quarantined(
                    where=f"split {item.split}",
                    record=item.id,
                    reason=f"{what} was already used by an earlier row",
                )
            )
        else:
            ids.add(item.id)
            images.add(item.image)
            samples.append(item)
    return samples, quarantined
