"""Reader of EmoSet-118K, and of AffectWorld, which has the same layout.

Ref: EmoSet, arXiv 2307.07961, and the files of its release (`info.json`, splits, annotations).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from data_tools.files.paths import locate
from data_tools.labels.votes import vote_problems
from data_tools.quarantine import InvalidRecord, Quarantined
from emosym.affect.scales import PUBLIC
from emosym.affect.taxonomies import mikels
from emosym.errors import UserError
from emosym.records import Sample, Split
from emosym.strict_json import BadJson, read_json

ATTRIBUTES = (
    "brightness",
    "colorfulness",
    "scene",
    "object",
    "facial_expression",
    "human_action",
)


def is_emoset(root: Path) -> bool:
    """Return whether a folder has EmoSet's layout: a label map and at least one split file."""
    return (root / "info.json").is_file() and bool(_split_files(root))


def read_emoset(root: Path) -> Iterator[Sample | Quarantined]:
    """Yield every row of the split files as a sample, or as a quarantined record.

    A row has four fields (emotion, image id, image path, annotation path), or three without the
    id. Images must exist; they are not decoded.

    Raises:
        UserError: `root` has no readable split file.
    """
    files = _split_files(root)
    if not files:
        raise UserError(
            f"{root} is not an EmoSet folder",
            expected="info.json and train.json, val.json, test.json in it",
        )
    for split, path in files.items():
        for number, row in enumerate(_rows(path), start=1):
            try:
                yield _sample(root, split, row)
            except (InvalidRecord, UserError) as error:
                yield Quarantined(
                    where=f"{path.name} row {number}", record=_name(row), reason=str(error)
                )


def _split_files(root: Path) -> dict[Split, Path]:
    paths = {split: root / f"{split}.json" for split in get_args(Split)}
    return {split: path for split, path in paths.items() if path.is_file()}


def _rows(path: Path) -> list[object]:
    try:
        rows = read_json(path.read_bytes())
    except (OSError, BadJson) as error:
        raise UserError(
            f"cannot read {path}",
            got=error,
            expected="a JSON list of rows",
            fix="download it again",
        ) from error
    if not isinstance(rows, list):
        raise UserError(f"cannot read {path}", got=type(rows).__name__, expected="a list of rows")
    return rows


def _name(row: object) -> str:
    return str(row[-2]) if isinstance(row, list) and len(row) in (3, 4) else str(row)[:80]


def _sample(root: Path, split: Split, row: object) -> Sample:
    if not isinstance(row, list) or len(row) not in (3, 4):
        raise InvalidRecord(f"expected a row of 3 or 4 fields, got {str(row)[:80]}")
    emotion = mikels(str(row[0]))
    image = locate(root, row[-2])
    annotation = _annotation(locate(root, row[-1]))
    if "emotion" in annotation and mikels(str(annotation["emotion"])) != emotion:
        raise InvalidRecord(
            f"the emotion is {emotion} in the row and {annotation['emotion']} in its annotation"
        )
    attributes = {
        key: annotation[key] for key in ATTRIBUTES if _has_label(key, annotation.get(key))
    }
    return Sample(
        id=row[1] if len(row) == 4 else image.stem,
        image=image,
        split=split,
        emotion=emotion,
        valence=_affect(annotation, "valence"),
        arousal=_affect(annotation, "arousal"),
        dominance=_affect(annotation, "dominance"),
        prompt=_text(annotation, "neutral_prompt") or _prompt_of(attributes),
        emotional_prompt=_text(annotation, "emotional_prompt"),
        knowledge=_knowledge(annotation),
        attributes=attributes,
        votes=_votes(annotation),
        source=_text(annotation, "source") or "emoset",
    )


def _annotation(path: Path) -> dict[str, object]:
    try:
        annotation = read_json(path.read_bytes())
    except (OSError, BadJson) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidRecord(f"annotation {path.name} cannot be read: {why}") from error
    if not isinstance(annotation, dict):
        raise InvalidRecord(f"annotation {path.name} is not a JSON object")
    return annotation


def _has_label(key: str, value: object) -> bool:
    """Return whether the value of an attribute is a label.

    In EmoSet an unlabelled attribute is absent or -1 (0 for `object`); a brightness of 0 is a
    label.
    """
    if key == "object" and value == 0:
        return False
    return value not in (None, -1, "", [])


def _affect(annotation: dict[str, object], key: str) -> float | None:
    value = annotation.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRecord(f"{key} is not a number: got {value!r}")
    return PUBLIC.check(value, key)


def _votes(annotation: dict[str, object]) -> dict[str, float] | None:
    votes = annotation.get("votes")
    if votes is None:
        return None
    for why in vote_problems(votes):
        raise InvalidRecord(f"votes: {why}")
    return votes if isinstance(votes, dict) else None


def _text(annotation: dict[str, object], key: str) -> str | None:
    value = annotation.get(key)
    return value.strip() or None if isinstance(value, str) else None


def _prompt_of(attributes: dict[str, object]) -> str | None:
    """Return a neutral prompt that names the image's objects and its scene; None without either."""
    objects = attributes.get("object", [])
    names = [*(objects if isinstance(objects, list) else [objects])]
    if "scene" in attributes:
        names.append(attributes["scene"])
    return ", ".join(str(name).replace("_", " ").lower() for name in names) or None


def _knowledge(annotation: dict[str, object]) -> str | None:
    """Return the annotation's reasoning knowledge: `qwen_aug`, or the expanded attributes.

    An expansion that only repeats the attribute's name is a placeholder of EmoSym's files.
    """
    whole = _text(annotation, "qwen_aug")
    if whole is not None:
        return whole
    expansions = [_text(annotation, f"{name}_aug") for name in ("scene", "object")]
    texts = [text for text in expansions if text is not None and text not in ("scene", "object")]
    return " ".join(texts) or None
