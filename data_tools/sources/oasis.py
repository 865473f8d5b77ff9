"""Reader of OASIS: 900 photographs with human ratings of valence and arousal.

Ratings are converted from 1-7 to the public scale. OASIS has no emotion labels and no official
split. Ref: Kurdi, Lozano & Banaji 2017, DOI 10.3758/s13428-016-0715-3.
"""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterator
from pathlib import Path

from data_tools.files.paths import locate
from data_tools.quarantine import InvalidRecord, Quarantined
from emosym.affect.scales import PUBLIC, SAM7
from emosym.errors import UserError
from emosym.records import Sample, Split

COLUMNS = ("Theme", "Category", "Valence_mean", "Arousal_mean")
SPLIT_SEED = 0
FOLD = 5
"""One of every `FOLD` photographs, sorted by valence, is held out: a stratified 80/20 split."""

_AFFECT_WORD = re.compile(
    r"(angry|bored|depressed|excited|frustrated|happy|miserable|neutral|sad|scared|scary|sleepy"
    r"|surprise)\b\s*"
)
_CATEGORY = {
    "Animal": "an animal",
    "Object": "an object",
    "Person": "a person",
    "Scenery": "a scenery",
}


def is_oasis(root: Path) -> bool:
    """Return whether a folder has the layout of OASIS."""
    return (root / "OASIS.csv").is_file()


def read_oasis(root: Path) -> Iterator[Sample | Quarantined]:
    """Yield every row of `OASIS.csv` as a sample, or as a quarantined record.

    Images must exist; they are not decoded. The split depends only on the table, so it is the same
    if only some of the images are there.

    Raises:
        UserError: `root` has no readable table.
    """
    if not is_oasis(root):
        raise UserError(f"{root} is not an OASIS folder", expected="OASIS.csv and images/ in it")
    rows = _rows(root / "OASIS.csv")
    ratings: dict[int, tuple[float, float]] = {}
    reasons: dict[int, str] = {}
    for number, row in rows.items():
        try:
            ratings[number] = _rating(row, "Valence_mean"), _rating(row, "Arousal_mean")
        except InvalidRecord as error:
            reasons[number] = str(error)
    splits = _splits({number: valence for number, (valence, _) in ratings.items()})
    for number, row in rows.items():
        theme = (row["Theme"] or "").strip()
        try:
            if number in reasons:
                raise InvalidRecord(reasons[number])
            if not theme:
                raise InvalidRecord("the theme is empty")
            image = locate(root, f"images/{theme}.jpg")
        except InvalidRecord as error:
            yield Quarantined(where=f"OASIS.csv row {number}", record=theme, reason=str(error))
            continue
        category = (row["Category"] or "").strip()
        content = re.sub(r"\s*\d+$", "", theme).lower()
        yield Sample(
            id=(row[""] or "").strip() or theme,
            image=image,
            split=splits[number],
            valence=ratings[number][0],
            arousal=ratings[number][1],
            prompt=_neutral(content),
            knowledge=f"The photograph shows {_CATEGORY.get(category, 'something')}: {content}.",
            attributes={"theme": theme, "category": category},
            source="oasis",
        )


def _rows(path: Path) -> dict[int, dict[str, str]]:
    """Return the table's rows by number, from 1.

    Lines of the published file end with bare carriage returns; Python's universal newlines accept
    those as well as `\\n` and `\\r\\n`.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = dict(enumerate(reader, start=1))
            columns = reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}", got=error, expected="OASIS' table") from error
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise UserError(
            f"{path} is not OASIS' table",
            got=f"columns {', '.join(columns) or 'none'}",
            expected=f"also {', '.join(missing)}",
        )
    for row in rows.values():
        row.setdefault("", "")  # the id column has no name; if it is missing, the theme is the id
    return rows


def _rating(row: dict[str, str], column: str) -> float:
    try:
        return SAM7.convert(SAM7.check(float(row[column] or ""), column), PUBLIC)
    except (ValueError, UserError) as error:
        raise InvalidRecord(
            f"{column} is {row[column]!r:.24}; expected a number in {SAM7}"
        ) from error


def _splits(valence: dict[int, float]) -> dict[int, Split]:
    """Return the split of each row: one random row of every `FOLD`, sorted by valence, is test."""
    rng = random.Random(SPLIT_SEED)
    order = sorted(valence, key=lambda number: (valence[number], number))
    splits: dict[int, Split] = dict.fromkeys(order, "train")
    for start in range(0, len(order), FOLD):
        chosen = start + rng.randrange(FOLD)
        if chosen < len(order):
            splits[order[chosen]] = "test"
    return splits


def _neutral(content: str) -> str:
    """Return a theme without affect words, which a neutral prompt may not contain."""
    return _AFFECT_WORD.sub("", content).strip() or "something"
