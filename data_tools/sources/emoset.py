"""Reading EmoSet-118K, and AffectWorld, which is written in its layout.

Ref: EmoSet, arXiv 2307.07961; its `info.json`, split files and annotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from data_tools.paths import locate
from data_tools.quarantine import Broken, Quarantined
from data_tools.votes import vote_problems
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
    """Yield every row of the split files as a sample, or as what is wrong with it.

    Rows have four fields (emotion, image id, image path, annotation path) or, without the id,
    three. Images must exist; they are not decoded. Raises `UserError` when `root` has no readable
    split file.
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
            except (Broken, UserError) as reason:
                yield Quarantined(
                    where=f"{path.name} row {number}", record=_name(row), reason=str(reason)
                )


def _split_files(root: Path) -> dict[Split, Path]:
    paths = {split: root / f"{split}.json" for split in get_args(Split)}
    return {split: path for split, path in paths.items() if path.is_file()}


def _rows(path: Path) -> list[object]:
    try:
        rows = read_json(path.read_bytes())
    except (OSError, BadJson) as error:
        raise UserError(
            f"cannot read {path}", got=error, expected="a JSON list of rows", fix="fetch it again"
        ) from error
    if not isinstance(rows, list):
        raise UserError(f"cannot read {path}", got=type(rows).__name__, expected="a list of rows")
    return rows


def _name(row: object) -> str:
    return str(row[-2]) if isinstance(row, list) and len(row) in (3, 4) else str(row)[:80]


def _sample(root: Path, split: Split, row: object) -> Sample:
    if not isinstance(row, list) or len(row) not in (3, 4):
        raise Broken(f"expected a row of 3 or 4 fields, got {str(row)[:80]}")
    emotion = mikels(str(row[0]))
    image = locate(root, row[-2])
    note = _annotation(locate(root, row[-1]))
    if "emotion" in note and mikels(str(note["emotion"])) != emotion:
        raise Broken(f"the row says {emotion}, its annotation says {note['emotion']}")
    attributes = {key: note[key] for key in ATTRIBUTES if _labelled(key, note.get(key))}
    return Sample(
        id=row[1] if len(row) == 4 else image.stem,
        image=image,
        split=split,
        emotion=emotion,
        valence=_affect(note, "valence"),
        arousal=_affect(note, "arousal"),
        dominance=_affect(note, "dominance"),
        prompt=_text(note, "neutral_prompt") or _content(attributes),
        emotional_prompt=_text(note, "emotional_prompt"),
        knowledge=_knowledge(note),
        attributes=attributes,
        votes=_votes(note),
        source=_text(note, "source") or "emoset",
    )


def _annotation(path: Path) -> dict[str, object]:
    try:
        note = read_json(path.read_bytes())
    except (OSError, BadJson) as error:
        raise Broken(f"annotation {path.name} cannot be read: {error}") from error
    if not isinstance(note, dict):
        raise Broken(f"annotation {path.name} is not a JSON object")
    return note


def _labelled(key: str, value: object) -> bool:
    """Return whether an attribute has a value.

    EmoSet leaves the key out, or writes -1 (for objects 0), where an image is unlabelled; a
    brightness of 0 is a label.
    """
    if key == "object" and value == 0:
        return False
    return value not in (None, -1, "", [])


def _affect(note: dict[str, object], key: str) -> float | None:
    value = note.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Broken(f"{key} is not a number: got {value!r}")
    return PUBLIC.check(value, key)


def _votes(note: dict[str, object]) -> dict[str, float] | None:
    votes = note.get("votes")
    if votes is None:
        return None
    for why in vote_problems(votes):
        raise Broken(f"votes: {why}")
    return votes  # type: ignore[return-value]


def _text(note: dict[str, object], key: str) -> str | None:
    value = note.get(key)
    return value.strip() or None if isinstance(value, str) else None


def _content(attributes: dict[str, object]) -> str | None:
    """Return a neutral prompt made of what the picture shows: its objects and its scene."""
    objects = attributes.get("object", [])
    names = [*(objects if isinstance(objects, list) else [objects])]
    if "scene" in attributes:
        names.append(attributes["scene"])
    return ", ".join(str(name).replace("_", " ").lower() for name in names) or None


def _knowledge(note: dict[str, object]) -> str | None:
    """Return the annotation's reasoning knowledge.

    Where an expansion is absent EmoSym's files hold the attribute's own name, which says nothing.
    """
    whole = _text(note, "qwen_aug")
    if whole is not None:
        return whole
    parts = [_text(note, f"{name}_aug") for name in ("scene", "object")]
    said = [part for part in parts if part is not None and part not in ("scene", "object")]
    return " ".join(said) or None
