"""Reading of a judge's answer, whose form is the model's own.

Unlike `emosym.tasks.answers`, whose strict form earns a reward, this reads Markdown, tables, JSON,
boxed answers and plain lines.

What is read. Reasoning is left out: what is in tags of reasoning, and of an answer in channels
(gpt-oss) all but the channel `final`. Where the rest has tags or boxes, they hold the answer.
A value is stated by its name, a separator (`:`, `=`, `|`, an arrow, a tab, "is", a line end or a
space), and one number or label that ends there; or by a row of a table under a row of names.

What is not read. It never chooses: a value that is stated in two ways, or in a way that can be read
as two, is absent. A label is absent too where the answer names another label after it, whatever the
words between ("Final: awe"). A number without a name states nothing, and contradicts nothing. No
value is read from an answer that takes its values back (`retractions`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest

from emosym.records import Question
from emosym.tasks.answers import LONGEST as PARSED
from emosym.tasks.base import Value
from emosym.tasks.dominant import labels_in_text, read_label
from emosym.tasks.registry import TASKS
from model_zoo.judges.retractions import are_withdrawn
from model_zoo.judges.tables import tables_as_lines

LONGEST = 2**18
"""Most characters of an answer that is read, with its reasoning."""

_PLAIN = str.maketrans(
    {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full-width ASCII
    | dict.fromkeys(map(ord, "\u2212\u2010\u2011\u2012\u2013\u207b\u2796\ufe58\ufe63"), "-")
    | dict.fromkeys(map(ord, "\u2236\ufe55\ua789"), ":")
    | dict.fromkeys(map(ord, "\u3000\u00a0\u202f\u2009"), " ")
    | dict.fromkeys(map(ord, "\u2018\u2019"), "'")
    | dict.fromkeys(map(ord, "\u201c\u201d"), '"')
    | {0x3001: ", ", 0x3002: ". "}  # ideographic comma and full stop
    | dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u200e\u200f\u00ad\ufe0f"))  # no width
)
"""Characters that are written in place of ASCII signs."""
_LONG_MINUS = re.compile(r"([:=|]\s?[\"'*`_]{0,2}\s?)[\u2014\u2015](?=[.0-9])")
"""A long dash as a sign: after another separator; otherwise it may be the separator."""
_EMOJI = re.compile(
    "(?<=[a-z])[ ]?[\u2600-\u2716\u2719-\u274b\u2764\U0001f300-\U0001f447\U0001f450-\U0001f6aa"
    "\U0001f6ac-\U0001faff]{1,8}",
    re.I,
)
"""Pictures after a word, without those that deny it."""
_THOUGHT = re.compile(
    r"<\s?(/?)\s?(?:seed:)?(?:think|thinking|thought|reasoning)(?:\s[^<>]{0,64})?>"
    r"|◁(/?)think▷|\[(/?)think\]",
    re.I,
)
_CHANNEL = re.compile(
    r"<\|channel\|>\s?([a-z]{1,20})[^<]{0,40}(?:<\|constrain\|>[^<]{0,40})?<\|message\|>"
)
"""The opening of a channel; `final` holds the answer, all others reasoning and calls of tools."""
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_CONTAINERS = (
    (re.compile(r"<\s?answer\s?>", re.I), re.compile(r"<\s?/\s?answer\s?>", re.I)),
    (re.compile(r"<\|begin_of_box\|>", re.I), re.compile(r"<\|end_of_box\|>", re.I)),
)
"""Openings and ends of what holds an answer; the box is GLM-V's."""
_ENDS = re.compile("|".join(end.pattern for _, end in _CONTAINERS), re.I)
_TEX_BOX = re.compile(r"\\boxed(?![a-z])")
_TOKENS = re.compile(r"<\s?/?\s?[a-z:]+\s?>|<\|[a-z_]+\|>|◁/?think▷|\[/?think\]", re.I)
_MARKS = re.compile(r"""[*_`"'#${}\[\]]|\\(?:boxed|text|textbf|mathrm|mathbf)\b|<\|?[a-z_/]+\|?>""")
"""Signs of Markdown, JSON and TeX around keys and values."""
_STRONG = re.compile(r"\s*(?:[:=|\t]|->|\u2192)\s*")
_WEAK = re.compile(r"\s+is\s+|[^\S\n]*\n\s*|[^\S\n]+(?=[-+.0-9])")
"""What separates a key from its value: surely, or only if a value follows."""
_END = re.compile(r"\n|;(?!\s*[0-9])|[,.|]\s*[a-z][a-z ]{0,30}[:=|]", re.I)
"""The end of what is said about a key: a line, a field, or another key."""
_VALUE = re.compile(
    r"(?:[-+]?(?:[0-9]{1,3}(?:\.[0-9]{1,20})?|\.[0-9]{1,20})(?:e[-+]?[0-9]{1,2})?"
    r"|[a-z]+(?:/[a-z]+)?)(?=\s*(?:$|[,;|]|\.(?![0-9])|(?<=\s)[-\u2014]+\s+[a-z]))",
    re.I,
)
"""A number or a word, and nothing that could belong to it."""
_JOINER = re.compile(r"(?:\s[-\u2014]+|/|&|\sand|\swith)(?:\s+the)?[^\S\n]*\Z", re.I)
"""What joins a value to the next key."""
_SIGNS = re.compile(r"\b(?:(negative|minus|below)|(positive|plus|above))\b", re.I)
_JSON = re.compile(r"(?<![a-z])\{\s*[\"'a-z]", re.I)


def stated_values(text: str, question: Question) -> dict[str, Value]:
    """Return the values that an answer states, by the keys of the question's task.

    A key is absent where no value, or more than one, can be read: "3 or 4", "1,5" (a decimal comma
    or two fields), "2/5", a value off the scale, two answers that differ, an answer that is cut
    off, and all that the module's text says is not read.
    """
    if len(text) > LONGEST:
        return {}
    plain = text.translate(_PLAIN).replace("\\n", "\n").replace('\\"', '"')
    plain = _LONG_MINUS.sub(r"\1-", _EMOJI.sub("", plain))
    answer = _without_reasoning(_final_channel(plain))
    bodies = _bodies(answer)
    if not bodies or are_withdrawn(answer, bodies[0], _name(question), question):
        return {}
    if bodies != [answer]:  # what is said after them, or in a box of TeX, is one more answer
        bodies.append(_ENDS.split(answer)[-1])
        bodies += [piece.partition("\n\n")[0] for piece in _TEX_BOX.split(answer)[1:]]
    found = [_readings(body, question) for body in bodies]
    after = _last_places(_ENDS.split(answer)[-1] if bodies != [answer] else "", question)
    values: dict[str, set[Value | None]] = {}
    for readings in found:
        if any(value is not None for _, value in readings):  # otherwise a form that was not filled
            for key, value in readings:
                values.setdefault(key, set()).add(value)
    single = {key: each.pop() for key, each in values.items() if len(each) == 1}
    return {
        key: value
        for key, value in single.items()
        if value is not None and not (isinstance(value, str) and after.keys() - {value})
    }


def in_asked_form(text: str) -> str:
    """Return a free answer as `<think>…</think><answer>…</answer>`, which `answers.parse` reads.

    Other tags, a box, and reasoning too long for `parse` are rewritten; the reasoning is then cut,
    and its signs `<` are left out. A text without one answer in tags or a box stays as it is; of
    one in channels the final one stays.
    """
    text = _final_channel(text)
    answer = _without_reasoning(text[-LONGEST:])
    found = _bodies(answer)
    bodies = {_TOKENS.sub("", body).replace("<", "").strip() for body in found}
    if found == [answer] or len(bodies) != 1:
        return text
    body = bodies.pop()
    thought = _TOKENS.sub("", text.partition(body)[0]).replace("<", "").strip()
    room = max(PARSED - len(body) - 64, 0)
    return f"<think>{thought[:room]}</think><answer>{body}</answer>"


def _final_channel(text: str) -> str:
    """Return what the channels `final` of a text hold; the text if it has no channels."""
    _, *pieces = _CHANNEL.split(text)
    if not pieces:
        return text
    messages = zip(pieces[::2], pieces[1::2], strict=True)
    return "\n".join(
        _CHANNEL_END.split(said)[0] for channel, said in messages if channel == "final"
    )


def _without_reasoning(text: str) -> str:
    """Return what is outside of reasoning.

    Reasoning that does not end is read only if an answer in tags or a box ends the text.
    """
    outside, inside, start = "", False, 0
    for tag in _THOUGHT.finditer(text):
        closes = any(tag.groups())
        if not inside:  # a closing tag without its opening, which is in the prompt, ends all before
            outside = "" if closes else outside + text[start : tag.start()]
        inside, start = not closes, tag.end()
    rest = text[start:]
    complete = any(re.search(rf"(?:{end.pattern})\s*$", rest, re.I) for _, end in _CONTAINERS)
    return "" if inside and not complete else outside + rest


def _bodies(answer: str) -> list[str]:
    """Return the texts that hold an answer: of the tags and the boxes, else all."""
    bodies = []
    for opening, end in _CONTAINERS:
        pieces = opening.split(answer)
        ends = [len(end.findall(piece)) for piece in pieces]
        if len(pieces) == 1:
            continue
        if sum(ends[1:]) < len(pieces) - 1:  # one is cut off
            return []
        bodies += [end.split(piece)[0] for piece in pieces[1:] if end.search(piece)]
    return bodies or [answer]


def _name(question: Question) -> re.Pattern[str]:
    """Return what finds the keys of the question's task in a text."""
    keys = "|".join(map(re.escape, TASKS[question.task].readers))
    suffix = r"(?:[^\S\n]{0,4}[:\s]\s{0,4}(?:score|level|rating|value|label)(?![a-z]))?"
    return re.compile(rf"(?<![a-z])({keys})(?![a-z]){suffix}", re.I)


def _readings(body: str, question: Question) -> list[tuple[str, Value | None]]:
    """Return key and value of each statement in a text; None for a value that cannot be read."""
    if body.count("{") > body.count("}"):  # JSON that is cut off
        return []
    if _JSON.search(body):  # what follows an object is no part of its last value
        body = body.replace("}", "}\n")
    name = _name(question)
    body = tables_as_lines(body, name)
    element = re.compile(rf"<\s?(/?)\s?{name.pattern}\s?>", re.I)
    if sum(1 if not tag[1] else -1 for tag in element.finditer(body)) > 0:  # XML that is cut off
        return []
    body = element.sub(lambda tag: "\n" if tag[1] else f"\n{tag[2]}: ", body)
    remark = re.compile(r"\(([^()]*)\)")
    plain = remark.sub(
        lambda m: m[0] if name.search(m[1]) or _SIGNS.search(m[1]) else " ", _MARKS.sub(" ", body)
    )
    last = _last_places(plain, question)
    found = []
    for key, place, said in _statements(plain, name):
        strong = _STRONG.match(said)
        separator = strong or _WEAK.match(said)
        if separator is None:
            continue
        said = _END.split(said[separator.end() :], maxsplit=1)[0]
        value = _value(said, key, question)
        if isinstance(value, str) and any(last[other] > place for other in last.keys() - {value}):
            value = None
        if strong or value is not None:
            found.append((key, value))
    return found


def _last_places(text: str, question: Question) -> dict[str, int]:
    """Return label -> place of its last mention in a text."""
    words = re.finditer(r"[a-z]+(?:/[a-z]+)?", text, re.I)
    found = ((read_label(word[0], question), word.start()) for word in words)
    return {label: place for label, place in found if label is not None}


def _statements(text: str, name: re.Pattern[str]) -> Iterator[tuple[str, int, str]]:
    """Yield each key in a text, in lower case, its end, and the text up to the next one."""
    places = list(name.finditer(text))
    for place, following in zip_longest(places, places[1:]):
        end = len(text) if following is None else following.start()
        said = text[place.end() : end]
        if following is not None:
            said = said[:-16] + _JOINER.sub("", said[-16:])
        yield place[1].lower(), place.end(), said


def _value(said: str, key: str, question: Question) -> Value | None:
    """Return the one value at the start of what is said about a key; None if it is not the only."""
    said = said.strip(" (),")
    token = _VALUE.match(said)
    if token is None:
        return None
    value = TASKS[question.task].readers[key].read(_plain_number(token[0]), question)
    rest = said[token.end() :]
    if not isinstance(value, float):
        return None if labels_in_text(rest, question) else value
    signs = {-1 if sign[1] else 1 for sign in _SIGNS.finditer(rest)}
    return None if re.search("[0-9]", rest) or any(sign * value < 0 for sign in signs) else value


def _plain_number(token: str) -> str:
    """Return a number as plain decimals, with a digit before the point; other words as they are."""
    try:
        number = float(token)
    except ValueError:
        return token
    return f"{number:.6f}".rstrip("0").rstrip(".")
