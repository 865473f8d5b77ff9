"""Reading files of questions: EEmoDB-QA, EEmoDB-Assess, and the layouts of `eemo_bench`.

Ref: EEmo-Logic, arXiv 2602.01173. Its files are JSON lists; the keys of a record determine the
layout.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from data_tools.questions import eemo_bench
from data_tools.questions.question_file import Record, read_records
from emosym.affect.norms import WORDS
from emosym.affect.scales import UNIT
from emosym.affect.taxonomies import EKMAN7
from emosym.errors import UserError
from emosym.records import Question, Split
from emosym.tasks.assessment import AXES
from emosym.tasks.base import Value

_IMAGE = "<image>"
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_KEY = re.compile(r"^answer:\s*", re.IGNORECASE)
_OPTION = re.compile(r"(?<!\w)([A-Z]):\s*")
_LISTED = re.compile(r"([^()]+)\(([^()]+)\)")


def read_questions(path: Path, images: Path, split: Split) -> list[Question]:
    """Return the questions of a file, in its order.

    The text of a question is that of the file; EEmo-Bench's choices, ratings and rankings have the
    prompts of `emosym.tasks`. Images are looked up in the folder `images` and must exist; they are
    not decoded. Truths are on [0, 1].

    Raises:
        UserError: a file of an unknown layout, or the first invalid record (names file, number of
            the record from 1, and field).
    """
    records = read_records(path, images, split)
    read = _layout(records[0])
    return [question for record in records for question in read(record)]


def _layout(record: Record) -> Callable[[Record], Iterator[Question]]:
    for keys, read in LAYOUTS:
        if not keys.isdisjoint(record.fields):
            return read
    raise UserError(
        f"{record.file} has an unknown layout",
        got=f"keys {list(record.fields)!r:.200}",
        expected="EEmoDB-QA, EEmoDB-Assess, EEmo-Bench, or EEmo-Logic's ArtEmis or ArtPhoto",
    )


def read_conversation(record: Record) -> Iterator[Question]:
    """Yield a question for every turn of a conversation about an image or a pair (LLaVA's format).

    The answer determines the task. `Valence: 0.5` is a rating, and so on; the letter or the text of
    an option in the human's turn is a choice; any other answer is a description.
    """
    images = _images(record, "image")
    turns = record.fields.get("conversations")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise record.error("conversations", "is no list of human's and gpt's turns", got=turns)
    texts = [_turn(record, place, turn) for place, turn in enumerate(turns)]
    shown = sum(text.count(_IMAGE) for text in texts)
    if shown not in (0, len(images)):
        raise record.error("image", f"{len(images)} named, but {shown} shown in the conversation")
    for place in range(0, len(texts), 2):
        text = record.check_text(f"conversations.{place}", _without_images(texts[place]))
        yield _turn_question(record, place // 2 + 1, images, text, texts[place + 1])


def read_assessment(record: Record) -> Iterator[Question]:
    """Yield the one question of a record for reinforcement learning, whose answer has a key."""
    field = "video_path" if "video_path" in record.fields else "image"  # its name is inherited
    images = _images(record, field)
    text = record.check_text("problem.question", _nested(record, "problem", "question"))
    text = record.check_text("problem.question", _without_images(text))
    answer = record.check_text("solution.answer", _nested(record, "solution", "answer"))
    fact = _fact(record, "solution.answer", answer)
    if fact is None:
        raise record.error(
            "solution.answer",
            "has no key that is rewarded",
            got=answer,
            expected="Valence:, Arousal:, Dominance:, Emotion ranking: or Dominant emotion:",
        )
    task, truth, labels = fact
    yield record.question(task, task, images, text, truth, labels=labels)


def _images(record: Record, field: str) -> tuple[Path, ...]:
    named = record.fields.get(field)
    if named is None:
        raise record.error(field, "missing")
    named = named if isinstance(named, list) else [named]
    if len(named) not in (1, 2):
        raise record.error(field, f"{len(named)} images", expected="one image or a pair")
    return tuple(record.image(field, name) for name in named)


def _without_images(text: str) -> str:
    """Return a text without the placeholders of images."""
    return re.sub(rf"\s*{_IMAGE}\s*", "\n", text).strip()


def _nested(record: Record, outer: str, inner: str) -> object:
    """Return `record[outer][inner]`, also where the levels are flattened."""
    for key in (outer, f"{outer}.{inner}", inner):
        if key in record.fields:
            value = record.fields[key]
            return value.get(inner) if isinstance(value, dict) else value
    return None


def _turn(record: Record, place: int, turn: object) -> str:
    field = f"conversations.{place}"
    speaker = ("human", "gpt")[place % 2]
    if not isinstance(turn, dict) or turn.get("from") != speaker:
        raise record.error(field, f"is no turn of {speaker}", got=turn)
    return record.check_text(f"{field}.value", turn.get("value"))


def _turn_question(
    record: Record, turn: int, images: tuple[Path, ...], text: str, reply: str
) -> Question:
    name, field = str(turn), f"conversations.{2 * turn - 1}"
    thinking, answers = _THINK.search(reply), _ANSWER.findall(reply)
    reason = thinking[1].strip() if thinking else None
    answer = answers[-1].strip() if answers else reply.rpartition("</think>")[2].strip()
    fact = _fact(record, field, answer)
    if fact is not None:
        task, truth, labels = fact
        return record.question(name, task, images, text, truth, reason=reason, labels=labels)
    options = _options(record, text)
    if options:
        choice = record.check_text(field, _KEY.sub("", answer))
        truth = {"answer": record.choice(field, choice, options)}
        return record.question(
            name, "perception", images, text, truth, reason=reason, options=options
        )
    truth = {"description": record.check_text(field, answer)}
    return record.question(name, "description", images, text, truth, reason=reason)


def _fact(
    record: Record, field: str, answer: str
) -> tuple[str, dict[str, Value], tuple[str, ...]] | None:
    """Return task, truth and labels of `Key: value`; None for an answer without one of the keys."""
    key, _, value = answer.partition(":")
    key, value = key.strip().lower(), value.strip()
    if key in AXES:
        return key, {key: record.rating(field, value, UNIT)}, EKMAN7
    if key == "emotion ranking":
        return "ranking", {key: record.ranking(field, value.split(","))}, EKMAN7
    if key == "dominant emotion":
        listed = _LISTED.fullmatch(value)
        name, labels = (listed[1], _labels(record, field, listed[2])) if listed else (value, EKMAN7)
        return "dominant", {key: record.label(field, name, labels)}, labels
    return None


def _labels(record: Record, field: str, listed: str) -> tuple[str, ...]:
    labels = tuple(record.label(field, name, tuple(WORDS)) for name in listed.split(","))
    twice = next((name for name in labels if labels.count(name) > 1), None)
    if twice is not None:
        raise record.error(field, f"the option {twice!r} comes twice")
    return labels


def _options(record: Record, text: str) -> dict[str, str]:
    """Return the options `A: … B: …` of a text; none where it lists no A and B."""
    marks = list(_OPTION.finditer(text))
    letters = [mark[1] for mark in marks]
    if "A" not in letters or "B" not in letters:
        return {}
    marks = marks[letters.index("A") :]
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    texts = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    texts[-1] = texts[-1].partition("\n")[0]  # a further line is no part of the option
    return record.options("conversations", zip((mark[1] for mark in marks), texts, strict=True))


LAYOUTS: tuple[tuple[frozenset[str], Callable[[Record], Iterator[Question]]], ...] = (
    (frozenset({"conversations"}), read_conversation),
    (frozenset({"judge_Q", "choose_Q", "emotion_list"}), eemo_bench.read_single),
    (frozenset({"judge_question", "choose_question"}), eemo_bench.read_pair),
    (frozenset({"question_type"}), eemo_bench.read_answered),
    (frozenset({"dominant_emotion"}), eemo_bench.read_artemis),
    (frozenset({"image_path"}), eemo_bench.read_artphoto),
    (frozenset({"problem", "solution", "problem.question", "question"}), read_assessment),
)
"""Keys that identify a layout -> its reader."""
