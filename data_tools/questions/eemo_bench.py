"""Reading EEmo-Bench, and the test files of EEmo-Logic beside it.

Ref: EEmo-Bench, arXiv 2504.16405; EEmo-Logic, arXiv 2602.01173.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from data_tools.questions.question_file import Record
from emosym.affect.scales import SAM9
from emosym.affect.taxonomies import EKMAN7, MIKELS8, mikels
from emosym.errors import UserError
from emosym.records import Question
from emosym.tasks.assessment import AXES, assessment_prompt
from emosym.tasks.base import Value
from emosym.tasks.description import description_prompt
from emosym.tasks.dominant import dominant_prompt
from emosym.tasks.perception import choice_prompt
from emosym.tasks.ranking import ranking_prompt

_ASPECTS = {f"{name.capitalize()} perception": name for name in ("emotion", *AXES)}


def read_single(record: Record) -> Iterator[Question]:
    """Yield the questions about one image: three ratings, a ranking, two choices, a description.

    Ratings are [mean, standard deviation, largest deviation] on 1-9; emotions come with votes.
    """
    images = _images(record, "image_name")
    for axis in AXES:
        field = axis.capitalize()
        stored = record.fields.get(field)
        if not isinstance(stored, list) or len(stored) != 3:
            raise record.error(field, "is no [mean, deviation, largest deviation]", got=stored)
        rating = {axis: record.rating(field, stored[0], SAM9)}
        yield record.question(axis, axis, images, assessment_prompt(axis), rating)
    ranking = {"emotion ranking": _ranking(record)}
    yield record.question("ranking", "ranking", images, ranking_prompt(EKMAN7), ranking)
    yield _choice(record, images, "judge", "judge_Q", "judge_A")
    yield _choice(record, images, "choose", "choose_Q", "choose_A")
    yield from _description(record, images, "open_ended_Q")


def read_pair(record: Record) -> Iterator[Question]:
    """Yield the questions about a pair: two choices, and a description where there is one."""
    images = _images(record, "image1_url", "image2_url")
    yield _choice(record, images, "judge", "judge_question", "judge_options")
    yield _choice(record, images, "choose", "choose_question", "choose_options")
    yield from _description(record, images, "open_ended_question")


def read_answered(record: Record) -> Iterator[Question]:
    """Yield the one question of a record in the layout of the published answers of models.

    Only this layout names the aspect of a choice and has a reference description.
    """
    fields = ("image_url",) if "image_url" in record.fields else ("image1_url", "image2_url")
    images = _images(record, *fields)
    text = record.text("question")
    if record.text("question_type") == "Open_ended":
        yield record.question(
            "open_ended",
            "description",
            images,
            description_prompt(text),
            {"description": record.text("correct_answer")},
        )
        return
    options = record.options("options", _literal(record, "options"))
    truth: dict[str, Value] = {
        "answer": record.choice("correct_answer", record.text("correct_answer"), options)
    }
    aspect = _ASPECTS.get(str(record.fields.get("perceptual_dimension")), "")
    prompt = choice_prompt(text, options)
    yield record.question(
        "choice", "perception", images, prompt, truth, options=options, aspect=aspect
    )


def read_artemis(record: Record) -> Iterator[Question]:
    """Yield the dominant emotion of a painting of ArtEmis; "something else" is not a label."""
    yield _dominant(record, "img_path", "dominant_emotion")


def read_artphoto(record: Record) -> Iterator[Question]:
    """Yield the dominant emotion of an art photograph."""
    yield _dominant(record, "image_path", "emotion")


def _dominant(record: Record, image: str, field: str) -> Question:
    try:
        emotion = mikels(record.text(field))
    except UserError as error:
        raise record.error(field, str(error)) from error
    truth = {"dominant emotion": emotion}
    return record.question(
        "dominant",
        "dominant",
        _images(record, image),
        dominant_prompt(MIKELS8),
        truth,
        labels=MIKELS8,
    )


def _images(record: Record, *fields: str) -> tuple[Path, ...]:
    return tuple(record.image(field, record.fields.get(field)) for field in fields)


def _ranking(record: Record) -> tuple[str, ...]:
    """Return the emotions by votes; ties keep the order of the file."""
    field = "emotion_list"
    voted = record.fields.get(field)
    if not isinstance(voted, list) or not all(
        isinstance(item, list) and len(item) == 2 for item in voted
    ):
        raise record.error(field, "is no list of [emotion, votes]", got=voted)
    for _, votes in voted:
        if isinstance(votes, bool) or not isinstance(votes, int | float) or not votes >= 0:
            raise record.error(field, "votes are no number from 0", got=votes)
    return record.ranking(field, [name for name, _ in sorted(voted, key=lambda item: -item[1])])


def _choice(
    record: Record, images: tuple[Path, ...], name: str, question: str, listed: str
) -> Question:
    options = record.letters(listed)
    field = f"{name}_answer"
    truth = {"answer": record.choice(field, record.text(field), options)}
    text = choice_prompt(record.text(question), options)
    return record.question(name, "perception", images, text, truth, options=options)


def _description(record: Record, images: tuple[Path, ...], field: str) -> Iterator[Question]:
    """Yield the open question, where there is one; this layout has no reference answer."""
    if record.fields.get(field) not in (None, ""):
        text = description_prompt(record.text(field))
        yield record.question("open_ended", "description", images, text, {})


def _literal(record: Record, field: str) -> list[tuple[object, object]]:
    """Return the items of a Python dictionary that is stored as text."""
    text = record.text(field)
    try:
        tree = ast.parse(text, mode="eval").body
        if not isinstance(tree, ast.Dict):
            raise ValueError("no dictionary")
        keys = [key for key in tree.keys if key is not None]  # None is `**`, which is no literal
        pairs = zip(keys, tree.values, strict=True)
        return [(ast.literal_eval(key), ast.literal_eval(value)) for key, value in pairs]
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        expected = "{'A': 'Yes.', 'B': 'No.'}"
        raise record.error(field, "is no dictionary", got=text, expected=expected) from error
