"""Words around the values of an answer that say that they do not count as they stand.

The rule: an answer has no values where, outside of its reasoning,

- it states a scale other than the asked one, anywhere;
- it refuses, anywhere: a sentence in the first person says that its writer cannot, will not, or
  does not judge, feel, know or have the image ("I do not feel emotions", "I am not sure"), or that
  a judgement cannot be made. To miss something in the image ("I see no people") is no refusal;
- it calls its values an example, or what somebody else said, within 60 characters before a name;
- it corrects itself after its first value: a word of correction, and in the same sentence a number,
  a name of a value, or a label.

These are the words of English. An answer that means such a thing in other words is read; the wish
to understand it would need a model. Where the words are there, the meaning is not asked: an image
without a score is better than a wrong one.
"""

from __future__ import annotations

import re

from emosym.affect.scales import PUBLIC
from emosym.records import Question
from emosym.tasks.dominant import labels_in_text

_NUMBER = r"([-+]?[0-9]{1,3}(?:\.[0-9]{1,3})?)"
_NOTE = r"(?:\s?\([^()]{0,40}\))?"
_RANGE = rf"{_NUMBER}{_NOTE}\s{{0,2}}(?:-|to|through|and|\.{{2,3}}|…)\s{{0,2}}{_NUMBER}"
_SCALES = (
    re.compile(
        rf"\b(?:scale|range|ranging|rated|rating|likert)\b[^-+0-9.;\n]{{0,30}}{_RANGE}", re.I
    ),
    re.compile(rf"[(\[]\s?(?:[a-z]+\s){{0,3}}{_RANGE}\s?[)\]]", re.I),
    re.compile(rf"{_RANGE}[- ]{{0,2}}(?:points?[- ])?(?:scale|range|likert)\b", re.I),
    re.compile(rf"{_NUMBER}\s?=\s?[a-z][a-z ]{{0,30}}[,;]\s?{_NUMBER}\s?=", re.I),
    re.compile(rf"\[\s?{_NUMBER}\s?,\s?{_NUMBER}\s?\]"),
)
"""A scale stated by its two ends."""
_MAXIMA = (
    re.compile(rf"\bout\s+of\s+{_NUMBER}|\bscale\s+of\s+{_NUMBER}(?!\s?(?:-|to))", re.I),
    re.compile(rf"\(\s?(?:[-+.0-9]{{1,6}}\s?)?(?:/|of)\s?{_NUMBER}\s?\)", re.I),
)
"""A scale stated by its upper end."""
_OTHER_UNIT = re.compile(
    r"\blikert\b|[0-9][- ]points?[- ]scale\b|\(\s?(?:in\s)?(?:%|percent)", re.I
)

_CORRECTION = re.compile(
    r"\b(?:correct(?:ion|ed|ing)|actually|on\s+second\s+thoughts?|scratch\s+that|i\s+mean[t]?"
    r"|(?:should|could|would|might|may|ought)\s+(?:to\s+)?(?:rather\s+|have\s+|better\s+)?be(?:en)?"
    r"|change|revis(?:e|ed|ion|ing)|updated?|erratum|oops|make\s+(?:it|that)|wait|instead|closer\s+to"
    r"|hmm+|edit|(?:is|would)\s+rather|my\s+mistake|sorry|no,)(?![a-z])(?=([.!?\s]{0,3}[^.!?;\n]{0,80}))",
    re.I,
)
"""A word of correction, and what it is about."""
_REFUSAL = re.compile(
    r"\b(?:i|we)\b(?!\s+can't\s+help\s+but)[^.!?;\n]{0,30}?"
    r"(?:\b(?:can\s?not|could\s+not|will\s+not|would\s+not|unable|not\s+able|refuse|decline)\b"
    r"|\b(?:ca|could|wo|would)n't\b"
    r"|(?:n't|\b(?:not|never|no))\b[^.!?;\n]{0,30}?"
    r"\b(?:feel|emotions?|sure|certain|know|opinions?|judg|rat(?:e|ing)|assess|evaluat|scor(?:e|ing)"
    r"|images?|pictures?|photo))"
    r"|\b(?:can\s?not|can't|unable\s+to|impossible\s+to|not\s+possible\s+to)\s+(?:be\s+)?"
    r"(?:judge|rate|assess|evaluate|determine|tell|say|analy[sz]e|see|view|provide|give)d?\b"
    r"|\b(?:no\s+image\s+(?:is|was|has)|as\s+an\s+ai\b)",
    re.I,
)
"""A sentence that says that its writer does not judge, or that a judgement cannot be made."""
_EXAMPLE = (
    r"\b(?:for\s+(?:example|instance)|examples?|samples?|e\.g\.|hypothetical(?:ly)?|placeholders?"
    r"|if\s+(?:it|this|that|there)\s+(?:were|was|is)"
    r"|(?<!as )(?<!format )(?<!form )you\s+(?:asked|wrote|said|gave))(?![a-z])"
    r"(?:[^.!?;\n]|:\s{{0,3}}\n){{0,60}}?{}"
)
"""Words that make the values after them no judgement."""


def are_withdrawn(answer: str, values: str, name: re.Pattern[str], question: Question) -> bool:
    """Return whether an answer says that its values do not count as they stand.

    Args:
        answer: the answer without its reasoning.
        values: the part of it that states the values.
        name: finds the names of the values.
        question: what was asked.
    """
    if _on_other_scale(answer) or _REFUSAL.search(answer):
        return True
    if re.search(_EXAMPLE.format(name.pattern), answer, re.I):
        return True
    first = name.search(answer, max(answer.find(values), 0))
    if first is None:
        return False
    for correction in _CORRECTION.finditer(answer, first.end()):
        about = correction[1]
        if re.search("[0-9]", about) or name.search(about) or labels_in_text(about, question):
            return True
    return False


def _on_other_scale(answer: str) -> bool:
    """Return whether an answer states another scale than the asked one."""
    ends = [found.groups() for pattern in _SCALES for found in pattern.finditer(answer)]
    if any((float(low), float(high)) != (PUBLIC.low, PUBLIC.high) for low, high in ends):
        return True
    maxima = [found.groups() for pattern in _MAXIMA for found in pattern.finditer(answer)]
    if any(float(end) != PUBLIC.high for groups in maxima for end in groups if end):
        return True
    return bool(_OTHER_UNIT.search(answer))
