"""The manifest format: a JSONL file with one sample per line.

Required keys: id, image (path relative to the manifest's folder), split. Optional keys: emotion,
valence, arousal, dominance (on [-3, 3]), prompt, emotional_prompt, knowledge, attributes, votes
(Mikels label -> weight), source. All lines with the same image must have the same split.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from data_tools.files.paths import locate
from data_tools.labels.votes import vote_problems
from data_tools.quarantine import InvalidRecord
from emosym.affect.scales import PUBLIC
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.files import replacing
from emosym.pictures.loading import UnreadableImage, check_image
from emosym.records import Sample, Split
from emosym.strict_json import BadJson, read_json, to_json

_TEXTS = ("id", "image", "split", "emotion", "prompt", "emotional_prompt", "knowledge", "source")
_NUMBERS = ("valence", "arousal", "dominance")
_REQUIRED = ("id", "image", "split")
KEYS = (*_REQUIRED, "emotion", *_NUMBERS, *_TEXTS[4:7], "attributes", "votes", "source")


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a manifest; as text `file:line: field: why (sample ID)`."""

    file: Path
    line: int | None
    """From 1; None in a dataset that is no manifest."""
    field: str
    """`-` if the problem concerns the whole line."""
    why: str
    sample: str = ""
    """Id of the sample, where it has one."""
    usable: bool = False
    """Whether the sample can be used all the same; `why` then says what of it is ignored."""

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        sample = f" (sample {self.sample})" if self.sample else ""
        return f"{self.file}{line}: {self.field}: {self.why}{sample}"


TextCheck = Callable[[str], str | None]
"""A text of a sample -> why a model cannot use it, or None."""


def validate_manifest(
    path: Path,
    progress: Callable[[int, int], None] | None = None,
    check_text: TextCheck | None = None,
) -> list[Problem]:
    """Return all problems of a manifest; images are decoded completely.

    Args:
        path: the manifest.
        progress: called with (lines done, all lines) before each line.
        check_text: applied to prompts.

    Raises:
        UserError: the file cannot be read.
    """
    found = _examine(path, Check(check_text), progress)
    return [item for item in found if isinstance(item, Problem)]


@dataclass(frozen=True, slots=True)
class Check:
    """What is checked of a sample beyond its record: its image, decoded completely, and prompts."""

    text: TextCheck | None = None

    def image(self, path: Path) -> Iterator[tuple[str, bool]]:
        """Yield what is wrong with an image, and whether it can be used all the same."""
        try:
            yield from ((f"{what}; it is ignored", True) for what in check_image(path))
        except UnreadableImage as error:
            yield error.reason, False

    def prompts(self, record: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        """Yield the fields of a record with a prompt that the model cannot use, and why."""
        for field in ("prompt", "emotional_prompt"):
            text = record.get(field)
            why = self.text(text) if self.text is not None and isinstance(text, str) else None
            if why is not None:
                yield field, why


def read_manifest(path: Path) -> list[Sample]:
    """Return the samples of a manifest; images must exist, but are not decoded.

    Raises:
        UserError: the file cannot be read, or has problems; names the first one and their number.
    """
    items = list(_examine(path))
    samples = [item for item in items if isinstance(item, Sample)]
    problems = [item for item in items if isinstance(item, Problem)]
    if problems:
        count = len(problems)
        raise UserError(
            f"{problems[0]} ({count} problem{'s' if count > 1 else ''} in this manifest)",
            fix=f"list all with `emosym data validate {path}`",
        )
    return samples


def write_manifest(path: Path, samples: Iterable[Sample]) -> None:
    """Write a manifest; an old file is replaced only by a complete new one.

    Raises:
        UserError: an image is not in the manifest's folder.
    """
    root = Path(os.path.abspath(path.parent))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for sample in samples:
            file.write(to_json(_record(sample, root)) + "\n")


def problem_of(sample: Sample, root: Path) -> str | None:
    """Return why a manifest in `root` with this sample would be invalid, or None if it would not.

    The image file is not read.
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
            f"image of sample {sample.id!r} is outside the manifest's folder",
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
    path: Path, check: Check | None = None, progress: Callable[[int, int], None] | None = None
) -> Iterator[Sample | Problem]:
    """Yield for each line its sample, or its problems."""
    first_lines: dict[str, int] = {}
    splits: dict[str, tuple[int, object]] = {}
    empty = True
    try:
        if not path.is_file():  # reading a pipe could block
            raise UserError(
                f"cannot read manifest {path}",
                got="no regular file",
                expected="a JSONL file",
                fix="for a public dataset give its folder, or import it with `emosym data import`",
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
        empty = False
        try:
            record = _parse(line)
        except BadJson as error:
            yield Problem(path, number, error.field, error.why)
            continue
        wrong = list(_problems(record))
        name = record.get("id")
        if isinstance(name, str) and name:
            if name in first_lines:
                wrong.append(("id", f"{name!r} was already used on line {first_lines[name]}"))
            first_lines.setdefault(name, number)
        sample = name if isinstance(name, str) else ""
        image = None
        if isinstance(record.get("image"), str):
            try:
                image = locate(path.parent, record["image"])
                split = record.get("split")
                first, other = splits.setdefault(os.path.realpath(image), (number, split))
                if split in get_args(Split) and split != other:
                    raise InvalidRecord(
                        f"is in split {other!r} on line {first}: held-out data would leak"
                    )
            except InvalidRecord as reason:
                wrong.append(("image", str(reason)))
        if check is not None:
            wrong += check.prompts(record)
            for why, usable in check.image(image) if image is not None else ():
                if usable:
                    yield Problem(path, number, "image", why, sample, usable=True)
                else:
                    wrong.append(("image", why))
        yield from (Problem(path, number, field, why, sample) for field, why in wrong)
        if not wrong:
            yield Sample(**{**record, "image": image})  # type: ignore[arg-type]
    if empty:
        yield Problem(path, 1, "-", "the manifest is empty; expected one JSON object a line")


def _parse(line: str | bytes) -> dict[str, object]:
    """Return a line's object without keys that are null; raise `BadJson`."""
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
            yield key, f"expected a string, got {_kind(value)}"
        elif key in _REQUIRED and value == "":
            yield key, "is an empty string"
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
            yield key, f"unknown {key} {value!r:.80}; expected one of {', '.join(names)}{hint}"
    if record.get("emotion") == "":
        yield "emotion", "is an empty string; leave the key out if the emotion is unknown"


def _number(value: object) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield f"expected a number, got {_kind(value)}"
    elif not PUBLIC.low <= value <= PUBLIC.high:
        yield f"{value!r:.24} is outside {PUBLIC}; convert it from the scale of its dataset"


def _kind(value: object) -> str:
    names = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null" if value is None else "a number")
