"""The one parser of answers, shared by rewards and evaluation. It never raises."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from emosym.records import Question
from emosym.tasks.choices import chosen
from emosym.tasks.prompts import MOST_SUGGESTIONS, WHOLE

LONGEST = 4096
"""Characters read of an answer; a longer one is hostile or degenerate and is not parsed."""

SYNONYMS = {"neutrality": "neutral", "joyful": "joy", "shock": "surprise", "pleasure": "joy"}
"""Ref: EEmo-Logic's clean-up before scoring; taken only where the word is no label itself."""

_SHAPE = re.compile(r"<think>[^<]*</think>\s*<answer>([^<]*)</answer>")
_THOUGHT = re.compile(r"<think>([^<]*)</think>")
_LAST = re.compile(r"<answer>([^<]*)</answer>")
_NUMBER = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{1,6})?")

Value = str | float | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What could be read from an answer."""

    well_formed: bool
    """The whole text is `<think>…</think><answer>…</answer>`, every fact in it parses, and all that
    was asked for is said."""
    said: Mapping[str, Value] = field(default_factory=dict)
    """Key -> value; a key is absent where nothing that counts was said."""
    fill: float = 0.0
    """Share of the longest length allowed that the answer took, in [0, 1]; the sampler knows it."""


def parse(text: str, question: Question, *, lenient: bool = False) -> Answer:
    """Read `Emotion: fear; Valence: -1.3; Arousal: 0.9` from the last answer tag of a text.

    Numbers are plain ASCII decimals on the question's scale, emotions are among its labels, letters
    among its options; "1e999", "nan", Unicode digits and all else count as unsaid. `well_formed` is
    always strict. `lenient` reads more, for models that were never taught the form: without a tag
    the text after the reasoning is the answer, and where one thing is asked it may stand without
    its key and among other words.
    """
    if len(text) > LONGEST:
        return Answer(False)
    found = _LAST.findall(text)
    if not found and not lenient:
        return Answer(False)
    body = found[-1] if found else text.rpartition("</think>")[2]
    if question.task in WHOLE:  # free text, which may hold any sign
        facts: dict[str, Value] = {WHOLE[question.task]: body.strip()} if body.strip() else {}
        sound = bool(facts)
    else:
        facts, sound = _facts(body, question)
    shape = _SHAPE.fullmatch(text.strip()) is not None
    well_formed = shape and sound and set(question.truth) <= set(facts)
    if lenient and len(question.truth) == 1:
        (key,) = question.truth
        if key not in facts and (value := _find(key, body, question)) is not None:
            facts[key] = value
    return Answer(well_formed, facts)


def thought(text: str) -> str:
    """Return the reasoning of an answer; empty where it has none that is closed."""
    found = _THOUGHT.search(text[:LONGEST])
    return found[1].strip() if found else ""


def _facts(body: str, question: Question) -> tuple[dict[str, Value], bool]:
    """Return what `Key: value; …` says, and whether every part of it says something."""
    facts: dict[str, Value] = {}
    sound = True
    for part in body.split(";"):
        key, _, value = part.partition(":")
        key = key.strip().lower()
        read = None
        if key in READERS and key not in facts:
            read = READERS[key](value.strip(), question)
        if read is None:
            sound = False
        else:
            facts[key] = read
    return facts, sound


def _label(value: str, question: Question) -> str | None:
    name = value.lower()
    if name in question.labels:
        return name
    name = SYNONYMS.get(name, name)
    return name if name in question.labels else None


def _labels(value: str, question: Question) -> tuple[str, ...] | None:
    """Read up to three different emotions; more than that were not asked for."""
    names = [_label(part.strip(), question) for part in value.split(",")]
    if None in names:
        return None
    return tuple(dict.fromkeys(names))[:3]


def _number(value: str, question: Question) -> float | None:
    if not _NUMBER.fullmatch(value):
        return None
    number = float(value)
    inside = question.scale.low <= number <= question.scale.high
    return number if math.isfinite(number) and inside else None


def _phrases(value: str, question: Question) -> tuple[str, ...] | None:
    """Read up to three different phrases; more than that were not asked for."""
    phrases = [" ".join(part.split()) for part in value.split(",")]
    return tuple(dict.fromkeys(phrases))[:MOST_SUGGESTIONS] if all(phrases) else None


def _option(value: str, question: Question) -> str | None:
    return value.upper() if value.upper() in question.options else None


READERS: dict[str, Callable[[str, Question], Value | None]] = {
    "emotion": _label,
    "valence": _number,
    "arousal": _number,
    "dominance": _number,
    "emotion ranking": _labels,
    "dominant emotion": _label,
    "answer": _option,
    "suggestions": _phrases,
}
"""Key of an answer -> reader of its value; None for what does not count. The keys of
`prompts.WHOLE` are not among them: there the whole answer is the value."""


def _find(key: str, body: str, question: Question) -> Value | None:
    """Return what in free text answers a key, or None."""
    if READERS.get(key) is _option:
        return chosen(body, question.options)
    if READERS.get(key) is _number:
        numbers = re.findall(r"(?<![0-9.])-?[0-9]{1,3}(?:\.[0-9]{1,6})?(?![0-9])", body)
        return next((read for n in numbers if (read := _number(n, question)) is not None), None)
    words = re.findall(r"[a-z]+(?:/[a-z]+)?", body.lower())
    named = [name for word in words if (name := _label(word, question)) is not None]
    if READERS.get(key) is _labels:
        return tuple(dict.fromkeys(named))[:3] or None
    return named[0] if named else None
