"""The one parser of answers, shared by rewards and evaluation. It never raises."""

from __future__ import annotations

import re

from emosym.records import Question
from emosym.tasks.base import Answer, Value
from emosym.tasks.registry import TASKS, reader_of

LONGEST = 4096
"""Most characters of an answer that is parsed; a longer one is degenerate or hostile."""

_SHAPE = re.compile(r"<think>[^<]*</think>\s*<answer>([^<]*)</answer>")
_THOUGHT = re.compile(r"<think>([^<]*)</think>")
_LAST = re.compile(r"<answer>([^<]*)</answer>")


def parse(text: str, question: Question, *, lenient: bool = False) -> Answer:
    """Parse `Emotion: fear; Valence: -1.3; Arousal: 0.9` from the last answer tag of a text.

    Numbers are plain ASCII decimals on the question's scale, emotions are among its labels, letters
    among its options. Anything else ("1e999", "nan", Unicode digits) gives no value. `well_formed`
    is always strict. `lenient` parses more, for models that were not trained on this form: without
    an answer tag, the text after the reasoning is the answer; and where the question has one key,
    its value is also found without the key and among other words.
    """
    if len(text) > LONGEST:
        return Answer(False)
    tagged = _LAST.findall(text)
    if not tagged and not lenient:
        return Answer(False)
    body = tagged[-1] if tagged else text.rpartition("</think>")[2]
    task = TASKS.get(question.task)
    if task is not None and task.free_text is not None:  # free text may hold any sign
        values: dict[str, Value] = {task.free_text: body.strip()} if body.strip() else {}
        complete = bool(values)
    else:
        values, complete = _pairs(body, question)
    shape = _SHAPE.fullmatch(text.strip()) is not None
    well_formed = shape and complete and set(question.truth) <= set(values)
    if lenient and len(question.truth) == 1:
        (key,) = question.truth
        reader = reader_of(key)
        if key not in values and reader is not None:
            value = reader.find(body, question)
            if value is not None:
                values[key] = value
    return Answer(well_formed, values)


def reasoning(text: str) -> str:
    """Return the text in `<think></think>`; empty where there is no closed tag."""
    found = _THOUGHT.search(text[:LONGEST])
    return found[1].strip() if found else ""


def _pairs(body: str, question: Question) -> tuple[dict[str, Value], bool]:
    """Return the values of `Key: value; …`, and whether every part of the text parsed."""
    values: dict[str, Value] = {}
    complete = True
    for pair in body.split(";"):
        key, _, written = pair.partition(":")
        key = key.strip().lower()
        reader = reader_of(key)
        value = None
        if reader is not None and key not in values:
            value = reader.read(written.strip(), question)
        if value is None:
            complete = False
        else:
            values[key] = value
    return values, complete
