"""Which option of a multiple choice a free text chooses."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ANNOUNCED = re.compile(r"(?i:answer|option|choice)(?i:\s+is)?[\s:*(]*([A-Z])(?![A-Za-z'])")
_MARKED = re.compile(r"(?<![A-Za-z])([A-Z])(?=\s*(?:[:.)*]|$))", re.MULTILINE)


def chosen(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that a text in free words chooses, or None.

    In this order: the last letter announced as answer or option ("the answer is B"), the last
    that stands as a mark ("B: Joy", "(B)"), the option whose words come first. The options listed
    one after the other repeat the question and choose nothing. Letters are capital: "a" is a word.

    Ref: EEmo-Bench (arXiv 2504.16405), perception; its own reading is not published. This one gives
    the published verdicts on the recorded answers of two models (tests/eval/test_eemo_bench.py).
    """
    text = _repeated(options).sub(" ", text)
    for form in (_ANNOUNCED, _MARKED):
        letters = [letter for letter in form.findall(text) if letter in options]
        if letters:
            return letters[-1]
    return _first_named(_words(text), {key: _words(value) for key, value in options.items()})


def _repeated(options: Mapping[str, str]) -> re.Pattern[str]:
    listed = (rf"{letter}\s*:\s*{re.escape(words)}" for letter, words in options.items())
    return re.compile(r"\s*".join(listed)) if options else re.compile(r"(?!)")


def _first_named(text: str, options: Mapping[str, str]) -> str | None:
    """Return the option named first; of two that begin together the longer one."""
    places = {letter: text.find(words) for letter, words in options.items() if words.strip()}
    named = [letter for letter, place in places.items() if place >= 0]
    return min(named, key=lambda letter: (places[letter], -len(options[letter])), default=None)


def _words(text: str) -> str:
    """Return lower-case words between single spaces; an image is also called a picture."""
    plain = re.sub(r"'s\b", "", text.lower()).replace("image", "picture")
    return f" {' '.join(re.findall(r'[a-z0-9]+', plain))} "
