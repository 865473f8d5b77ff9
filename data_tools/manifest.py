"""The manifest: one JSON object a line, one line a sample.

Keys: id, image (a path relative to the manifest's folder), split, and, where known, emotion,
valence, arousal, dominance (on [-3, 3]), prompt, emotional_prompt, knowledge, attributes, votes
(an object of Mikels labels and weights), source. An image belongs to one split.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from data_tools.images import check_image
from data_tools.paths import locate
from data_tools.quarantine import Broken
from data_tools.votes import vote_problems
from emosym.affect.scales import PUBLIC
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.files import replacing
from emosym.records import Sample, Split
from emosym.strict_json import BadJson, read_json

_TEXTS = ("id", "image", "split", "emotion", "prompt", "emotional_prompt", "knowledge", "source")
_NUMBERS = ("valence", "arousal", "dominance")
_REQUIRED = ("id", "image", "split")
KEYS = (*_REQUIRED, "emotion", *_NUMBERS, *_TEXTS[4:7], "attributes", "votes", "source")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a manifest; its text is `file:line: field: why`."""

    file: Path
    line: int
    """From 1."""
    field: str
    """`-` when the line as a whole is wrong."""
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.why}"


def validate_manifest(
    path: Path, progress: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Return every problem of a manifest, its images decoded in full; an empty list means valid.

    `progress(done, lines)` is called before each line. Raises `UserError` when the manifest itself
    cannot be read.
    """
    found = _examine(path, decode=True, progress=progress)
    return [item for item in found if isinstance(item, Problem)]


def read_manifest(path: Path) -> list[Sample]:
    """Return the samples of a manifest; its images must exist but are not decoded.

    Raises `UserError` with the first problem and how many there are.
    """
    samples: list[Sample] = []
    problems: list[Problem] = []
    for item in _examine(path, decode=False):
        (samples if isinstance(item, Sample) else problems).append(item)
    if problems:
        count = len(problems)
        raise UserError(
            f"{problems[0]} ({count} problem{'s' if count > 1 else ''} in this manifest)",
            fix=f"list all with `emosym data validate {path}`",
        )
    return samples


def write_manifest(path: Path, samples: Iterable[Sample]) -> None:
    """Write a manifest beside its images; the old file stays until the new one is whole.

    Raises `UserError` when an image does not lie in the manifest's folder.
    """
    root = Path(os.path.abspath(path.parent))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for sample in samples:
            file.write(json.dumps(_record(sample, root), ensure_ascii=False) + "\n")


def problem_of(sample: Sample, root: Path) -> str | None:
    """Return why a manifest in `root` that held this sample would be refused, None if it would not.

    Its image is not looked at.
    """
    try:
        record = _parse(json.dumps(_record(sample, root)))
    except BadJson as error:
        return str(error)
    return next((f"{field}: {why}" for field, why in _problems(record)), None)


def _record(sample: Sample, root: Path) -> dict[str, object]:
    image = Path(os.path.abspath(sample.image))
    if not image.is_relative_to(root):
        raise UserError(
            f"image of sample {sample.id!r} lies outside the manifest's folder",
            got=image,
            expected=f"a file in {root}",
            fix="copy it there, or import the dataset",
        )
    record = {key: getattr(sample, key) for key in KEYS}
    record["image"] = image.relative_to(root).as_posix()
    record["attributes"] = dict(sample.attributes)
    record["votes"] = None if sample.votes is None else dict(sample.votes)
    return {key: value for key, value in record.items() if value not in (None, {}, "")}


def _examine(
    path: Path, *, decode: bool, progress: Callable[[int, int], None] | None = None
) -> Iterator[Sample | Problem]:
    """Yield each line as a sample, or as its problems."""
    seen: dict[str, int] = {}
    places: dict[str, tuple[int, object]] = {}
    found = False
    try:
        if not path.is_file():  # a pipe would keep us waiting
            raise UserError(
                f"cannot read manifest {path}",
                got="no regular file",
                expected="a JSONL file",
                fix="a published dataset has none: use it in place, or let `emosym data import`"
                " check it and write one",
            )
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(
            f"cannot read manifest {path}", got=error.strerror, expected="a JSONL file"
        ) from error
    for number, line in enumerate(lines, start=1):
        if progress is not None:
            progress(number - 1, len(lines))
        if not line.strip():
            continue
        found = True
        try:
            record = _parse(line)
        except BadJson as error:
            yield Problem(path, number, error.field, error.why)
            continue
        wrong = list(_problems(record))
        name = record.get("id")
        if isinstance(name, str) and name:
            if name in seen:
                wrong.append(("id", f"{name!r} was already used on line {seen[name]}"))
            seen.setdefault(name, number)
        image = None
        if isinstance(record.get("image"), str):
            try:
                image = locate(path.parent, record["image"])
                split = record.get("split")
                first, other = places.setdefault(os.path.realpath(image), (number, split))
                if split in get_args(Split) and split != other:
                    raise Broken(f"is in split {other!r} on line {first}: held-out data would leak")
                if decode:
                    check_image(image)
            except Broken as reason:
                wrong.append(("image", str(reason)))
        yield from (Problem(path, number, field, why) for field, why in wrong)
        if not wrong:
            yield Sample(**{**record, "image": image})  # type: ignore[arg-type]
    if not found:
        yield Problem(path, 1, "-", "the manifest is empty; expected one JSON object a line")


def _parse(line: str | bytes) -> dict[str, object]:
    """Return a line's object without its nulls (null is the same as absent); raise `BadJson`."""
    record = read_json(line)
    if not isinstance(record, dict):
        raise BadJson((), f"expected a JSON object, got {_kind(record)}")
    return {key: value for key, value in record.items() if value is not None}


def _problems(record: dict[str, object]) -> Iterator[tuple[str, str]]:
    for key in record:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(KEYS)}"
            yield key, f"unknown key; {hint}"
    for key in _REQUIRED:
        if key not in record:
            yield key, "missing; every sample needs it"
    for key in _TEXTS:
        value = record.get(key)
        if key in record and not isinstance(value, str):
            yield key, f"expected a text, got {_kind(value)}"
        elif key in _REQUIRED and value == "":
            yield key, "is an empty text"
    for key in _NUMBERS:
        if key in record:
            yield from ((key, why) for why in _number(record[key]))
    if "attributes" in record and not isinstance(record["attributes"], dict):
        yield "attributes", f"expected an object, got {_kind(record['attributes'])}"
    if "votes" in record:
        yield from (("votes", why) for why in vote_problems(record["votes"]))
    for key, names in (("split", get_args(Split)), ("emotion", MIKELS8)):
        value = record.get(key)
        if isinstance(value, str) and value and value not in names:
            near = difflib.get_close_matches(value.lower(), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield key, f"unknown {key} {value!r}; expected one of {', '.join(names)}{hint}"
    if record.get("emotion") == "":
        yield "emotion", "is an empty text; leave the key out when the emotion is unknown"


def _number(value: object) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield f"expected a number, got {_kind(value)}"
    elif not PUBLIC.low <= value <= PUBLIC.high:
        yield f"{value!r:.24} is outside {PUBLIC}; convert it from the scale of its dataset"


def _kind(value: object) -> str:
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), "null" if value is None else "a number")
