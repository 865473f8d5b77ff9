"""The one parser of answers, shared by rewards and evaluation. It never raises."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from emosym.affect import PUBLIC
from emosym.taxonomy import MIKELS8

LONGEST = 4096
"""Characters read of an answer; a longer one is hostile or degenerate and is not parsed."""

_SHAPE = re.compile(r"<think>[^<]*</think>\s*<answer>([^<]*)</answer>")
_LAST = re.compile(r"<answer>([^<]*)</answer>")
_NUMBER = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Answer:
    """What could be read from an answer; None where it said nothing that counts."""

    well_formed: bool
    """The whole text is `<think>…</think><answer>…</answer>` and every fact in it parses."""
    emotion: str | None = None
    valence: float | None = None
    """On `affect.PUBLIC`."""
    arousal: float | None = None
    """On `affect.PUBLIC`."""


def parse(text: str) -> Answer:
    """Read `Emotion: fear; Valence: -1.3; Arousal: 0.9` from the last answer tag of a text.

    Strict and lenient at once: the facts are taken wherever the last `<answer>` stands, and
    `well_formed` tells whether the form was kept. Numbers are plain ASCII decimals on
    `affect.PUBLIC`; "1e999", "nan", Unicode digits and values outside the scale count as unsaid.
    """
    if len(text) > LONGEST:
        return Answer(False)
    found = _LAST.findall(text)
    if not found:
        return Answer(False)
    facts: dict[str, str | float] = {}
    sound = True
    for part in found[-1].split(";"):
        key, separator, value = part.partition(":")
        key, value = key.strip().lower(), value.strip()
        read = _read(key, value) if separator and key not in facts else None
        if read is None:
            sound = False
        else:
            facts[key] = read
    shape = _SHAPE.fullmatch(text.strip()) is not None
    return Answer(
        well_formed=shape and sound,
        emotion=facts.get("emotion"),  # type: ignore[arg-type]
        valence=facts.get("valence"),  # type: ignore[arg-type]
        arousal=facts.get("arousal"),  # type: ignore[arg-type]
    )


def _read(key: str, value: str) -> str | float | None:
    if key == "emotion":
        return value.lower() if value.lower() in MIKELS8 else None
    if key in ("valence", "arousal") and _NUMBER.fullmatch(value):
        number = float(value)
        inside = math.isfinite(number) and PUBLIC.low <= number <= PUBLIC.high
        return number if inside else None
    return None
