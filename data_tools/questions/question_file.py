"""A file of questions as others published it: a JSON list, each record read without trust."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.files.paths import locate
from data_tools.quarantine import InvalidRecord
from emosym.affect.scales import UNIT, Scale
from emosym.affect.taxonomies import EKMAN7
from emosym.errors import UserError
from emosym.records import Question, Split
from emosym.strict_json import BadJson, read_json
from emosym.tasks import prompts
from emosym.tasks.answers import SYNONYMS


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record; its methods raise `UserError` that names file, number of the record and field."""

    file: Path
    number: int
    """From 1."""
    fields: dict[str, object]
    images: Path
    """The folder that images are named in."""
    split: Split

    def wrong(
        self, field: str, why: str, *, got: object = None, expected: object = None
    ) -> UserError:
        """Return the error for a field."""
        where = f"{self.file}: record {self.number}: {field}: {why}"
        return UserError(
            where,
            got=None if got is None else f"{got!r:.80}",
            expected=expected,
            fix="correct the record, or take it out",
        )

    def text(self, field: str) -> str:
        """Return a field that is a text, not empty."""
        return self.said(field, self.fields.get(field))

    def said(self, field: str, value: object) -> str:
        """Return a value found at a field, when it is a text and not empty."""
        if value is None:
            raise self.wrong(field, "missing")
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, "is no text", got=value)
        return value.strip()

    def image(self, field: str, value: object) -> Path:
        """Return the image that a text names; Windows' `\\` separates folders as `/` does."""
        name = self.said(field, value).replace("\\", "/")
        try:
            return locate(self.images, name)
        except InvalidRecord as reason:
            raise self.wrong(field, str(reason)) from reason

    def rating(self, field: str, value: object, scale: Scale) -> float:
        """Return a number of a scale on [0, 1], with the four decimals of answers."""
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not scale.low <= number <= scale.high:
            expected = f"a number in {scale}"
            raise self.wrong(field, "is no number of its scale", got=value, expected=expected)
        return round(scale.convert(number, UNIT), 4)

    def label(self, field: str, name: object, labels: Sequence[str]) -> str:
        """Return one of `labels` by its name in any case."""
        label = self.said(field, name).lower()
        label = label if label in labels else SYNONYMS.get(label, label)
        if label not in labels:
            listed = f"one of {', '.join(labels)}"
            raise self.wrong(field, f"unknown emotion {label!r:.40}", expected=listed)
        return label

    def ranking(self, field: str, names: Sequence[object]) -> tuple[str, ...]:
        """Return the three strongest of the seven basic emotions, strongest first."""
        ranking = tuple(self.label(field, name, EKMAN7) for name in names)
        if len(ranking) != 3 or len(set(ranking)) != 3:
            raise self.wrong(field, "is no ranking", got=ranking, expected="three emotions")
        return ranking

    def options(self, field: str, pairs: Iterable[tuple[object, object]]) -> dict[str, str]:
        """Return the options of a multiple choice: two or more, no letter and no text twice."""
        options: dict[str, str] = {}
        for letter, said in pairs:
            letter, said = self.said(field, letter).upper(), self.said(field, said)
            if len(letter) != 1 or not "A" <= letter <= "Z":
                raise self.wrong(field, f"{letter!r:.40} is no letter")
            if letter in options:
                raise self.wrong(field, f"the letter {letter} comes twice")
            twin = next((old for old, text in options.items() if _same(text, said)), None)
            if twin is not None:
                raise self.wrong(field, f"options {twin} and {letter} are the same", got=said)
            options[letter] = said
        if len(options) < 2:
            raise self.wrong(field, "has fewer than two options")
        return options

    def letters(self, field: str) -> dict[str, str]:
        """Return the options of a field that is an object of letters and texts."""
        value = self.fields.get(field)
        if not isinstance(value, dict):
            raise self.wrong(field, "is no object of letters and options", got=value)
        return self.options(field, value.items())

    def choice(self, field: str, said: str, options: dict[str, str]) -> str:
        """Return the letter of the right option, said by letter (`B`, `B: Yes.`) or by its text."""
        by_text = [letter for letter, text in options.items() if _same(text, said)]
        letter = by_text[0] if by_text else said[0].upper()
        spelled = bool(by_text) or len(said) == 1 or said[1] in ":.)"
        if not spelled or letter not in options:
            raise self.wrong(field, "is no option", got=said, expected=", ".join(options))
        return letter

    def question(
        self,
        name: str,
        task: str,
        images: tuple[Path, ...],
        text: str,
        truth: dict[str, str | float | tuple[str, ...]],
        *,
        reason: str | None = None,
        labels: Sequence[str] = EKMAN7,
        options: dict[str, str] | None = None,
        aspect: str = "",
    ) -> Question:
        """Return a question of this record with its reference answer, where a truth is known."""
        return Question(
            id=f"{self.file.stem}/{self.number}/{name}",
            task=task,
            images=images,
            split=self.split,
            text=text,
            truth=truth,
            answer=prompts.reply(truth, UNIT, reason) if truth else "",
            labels=tuple(labels),
            scale=UNIT,
            options=options or {},
            aspect=aspect,
        )


def read_records(path: Path, images: Path, split: Split) -> list[Record]:
    """Return the records of a JSON list.

    Raises `UserError` for a folder of images or a file that is not there, for what is no JSON list
    of objects, and for an empty one; what `read_json` refuses is told with its record.
    """
    if not images.is_dir():
        raise UserError(f"no folder {images}", expected="the folder of the images")
    try:
        value = read_json(path.read_bytes())
    except (OSError, BadJson) as error:
        if isinstance(error, BadJson) and error.path and isinstance(error.path[0], int):
            place, *inner = error.path
            record = Record(file=path, number=place + 1, fields={}, images=images, split=split)
            raise record.wrong(BadJson(inner, error.why).field, error.why) from error
        raise UserError(f"cannot read {path}", got=error, expected="a JSON list") from error
    if not isinstance(value, list) or not value:
        got = "an empty list" if value == [] else type(value).__name__
        raise UserError(f"{path} holds no questions", got=got, expected="a JSON list of records")
    records = []
    for number, fields in enumerate(value, start=1):
        record = Record(file=path, number=number, fields=fields, images=images, split=split)
        if not isinstance(fields, dict):
            raise record.wrong("-", "is no object", got=fields)
        records.append(record)
    return records


def _same(first: str, second: str) -> bool:
    """Return whether two options say the same, but for case and the point at the end."""
    return first.strip(" .").casefold() == second.strip(" .").casefold()
