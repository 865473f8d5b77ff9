"""A published file of questions: a JSON list whose records are all checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.files.paths import locate
from data_tools.quarantine import InvalidRecord
from emosym.affect.scales import UNIT, Scale
from emosym.affect.taxonomies import EKMAN7
from emosym.errors import UserError
from emosym.records import Question, Split
from emosym.strict_json import BadJson, read_json
from emosym.tasks.base import Value
from emosym.tasks.dominant import SYNONYMS
from emosym.tasks.registry import TASKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record. Its methods raise a `UserError` that names file, number and field."""

    file: Path
    number: int
    """From 1."""
    fields: dict[str, object]
    images: Path
    """The folder that names of images are relative to."""
    split: Split

    def error(
        self, field: str, why: str, *, got: object = None, expected: object = None
    ) -> UserError:
        """Return the error for a field."""
        message = f"{self.file}: record {self.number}: {field}: {why}"
        return UserError(
            message,
            got=None if got is None else f"{got!r:.80}",
            expected=expected,
            fix="correct or remove the record",
        )

    def text(self, field: str) -> str:
        """Return a field that must be a text and not empty."""
        return self.check_text(field, self.fields.get(field))

    def check_text(self, field: str, value: object) -> str:
        """Return the value of a field, which must be a text and not empty."""
        if value is None:
            raise self.error(field, "missing")
        if not isinstance(value, str) or not value.strip():
            raise self.error(field, "is not a text", got=value)
        return value.strip()

    def image(self, field: str, value: object) -> Path:
        """Return the path of a named image; `\\` separates folders as `/` does."""
        name = self.check_text(field, value).replace("\\", "/")
        try:
            return locate(self.images, name)
        except InvalidRecord as reason:
            raise self.error(field, str(reason)) from reason

    def rating(self, field: str, value: object, scale: Scale) -> float:
        """Return a number of a scale, converted to [0, 1] and rounded to four decimals."""
        try:
            number = float(value) if isinstance(value, str | int | float) else math.nan
            number = math.nan if isinstance(value, bool) else number
        except (ValueError, OverflowError):
            number = math.nan
        if not scale.low <= number <= scale.high:
            expected = f"a number in {scale}"
            raise self.error(field, "is no number of its scale", got=value, expected=expected)
        return round(scale.convert(number, UNIT), 4)

    def label(self, field: str, name: object, labels: Sequence[str]) -> str:
        """Return the one of `labels` that a name in any case, or a synonym, stands for."""
        label = self.check_text(field, name).lower()
        label = label if label in labels else SYNONYMS.get(label, label)
        if label not in labels:
            listed = f"one of {', '.join(labels)}"
            raise self.error(field, f"unknown emotion {label!r:.40}", expected=listed)
        return label

    def ranking(self, field: str, names: Sequence[object]) -> tuple[str, ...]:
        """Return the three strongest of the seven basic emotions, strongest first."""
        ranking = tuple(self.label(field, name, EKMAN7) for name in names)
        if len(ranking) != 3 or len(set(ranking)) != 3:
            raise self.error(field, "is no ranking", got=ranking, expected="three emotions")
        return ranking

    def options(self, field: str, pairs: Iterable[tuple[object, object]]) -> dict[str, str]:
        """Return the options of a multiple choice: two or more, no letter and no text twice."""
        options: dict[str, str] = {}
        for name, value in pairs:
            letter, text = self.check_text(field, name).upper(), self.check_text(field, value)
            if len(letter) != 1 or not "A" <= letter <= "Z":
                raise self.error(field, f"{letter!r:.40} is no letter")
            if letter in options:
                raise self.error(field, f"the letter {letter} comes twice")
            twin = next((old for old, other in options.items() if _same(other, text)), None)
            if twin is not None:
                raise self.error(field, f"options {twin} and {letter} are the same", got=text)
            options[letter] = text
        if len(options) < 2:
            raise self.error(field, "has fewer than two options")
        return options

    def letters(self, field: str) -> dict[str, str]:
        """Return the options of a field that is an object of letters and texts."""
        value = self.fields.get(field)
        if not isinstance(value, dict):
            raise self.error(field, "is no object of letters and options", got=value)
        return self.options(field, value.items())

    def choice(self, field: str, answer: str, options: dict[str, str]) -> str:
        """Return the letter of the right option, given as a letter (`B`, `B: Yes.`) or a text."""
        by_text = [letter for letter, text in options.items() if _same(text, answer)]
        letter = by_text[0] if by_text else answer[0].upper()
        spelled = bool(by_text) or len(answer) == 1 or answer[1] in ":.)"
        if not spelled or letter not in options:
            raise self.error(field, "is no option", got=answer, expected=", ".join(options))
        return letter

    def question(
        self,
        name: str,
        task: str,
        images: tuple[Path, ...],
        text: str,
        truth: Mapping[str, Value],
        *,
        reason: str | None = None,
        labels: Sequence[str] = EKMAN7,
        options: dict[str, str] | None = None,
        aspect: str = "",
    ) -> Question:
        """Return a question of this record, with its reference answer where the truth is known."""
        return Question(
            id=f"{self.file.stem}/{self.number}/{name}",
            task=task,
            images=images,
            split=self.split,
            text=text,
            truth=truth,
            answer=TASKS[task].reply(truth, UNIT, reason) if truth else "",
            labels=tuple(labels),
            scale=UNIT,
            options=options or {},
            aspect=aspect,
        )


def read_records(path: Path, images: Path, split: Split) -> list[Record]:
    """Return the records of a JSON list.

    Raises:
        UserError: a missing folder or file, no JSON list of objects, an empty list, or JSON that
            `read_json` refuses (names the record).
    """
    if not images.is_dir():
        raise UserError(f"no folder {images}", expected="the folder of the images")
    try:
        value = read_json(path.read_bytes())
    except (OSError, BadJson) as error:
        if isinstance(error, BadJson) and error.path and isinstance(error.path[0], int):
            place, inner = error.path[0], error.path[1:]
            record = Record(file=path, number=place + 1, fields={}, images=images, split=split)
            raise record.error(BadJson(inner, error.why).field, error.why) from error
        raise UserError(f"cannot read {path}", got=error, expected="a JSON list") from error
    if not isinstance(value, list) or not value:
        got = "an empty list" if value == [] else type(value).__name__
        raise UserError(f"{path} holds no questions", got=got, expected="a JSON list of records")
    records = []
    for number, fields in enumerate(value, start=1):
        record = Record(file=path, number=number, fields=fields, images=images, split=split)
        if not isinstance(fields, dict):
            raise record.error("-", "is no object", got=fields)
        records.append(record)
    return records


def _same(first: str, second: str) -> bool:
    """Return whether two options are equal, apart from case and a final full stop."""
    return first.strip(" .").casefold() == second.strip(" .").casefold()
