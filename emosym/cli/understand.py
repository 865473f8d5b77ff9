"""`emosym understand`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emosym.affect.scales import UNIT
from emosym.cli.files import expand_images
from emosym.cli.loading import load_pipeline
from emosym.console.options import DEFAULT_MODEL, AsJson, Device, Model
from emosym.console.terminal import print_json, print_passage, progress, signed
from emosym.errors import UserError, unknown
from emosym.records import Question
from emosym.tasks import prompts

if TYPE_CHECKING:
    from emosym.inference.pipeline import EmoSymPipeline

AFFECT = "affect"
"""The task whose numbers come from the heads; the others are answered in words alone."""

TAGS = re.compile(r"(\s*</?(think|answer)>\s*)+")
"""What divides an answer for the parser; people get a line for each part."""


def understand(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    task: Annotated[
        str, typer.Option(help=f"What to ask: {', '.join((AFFECT, *prompts.ASKABLE))}.")
    ] = AFFECT,
    as_json: AsJson = False,
) -> None:
    """Say which emotion each image evokes, with valence and arousal from -3 to 3.

    Every image is checked first: with a broken one nothing is printed but its name.

    Any other --task is one question, answered in words by a model that has learned to; ratings are
    then from 0 to 1.
    """
    if task != AFFECT and task not in prompts.ASKABLE:
        raise unknown("task", task, (AFFECT, *prompts.ASKABLE))
    paths = expand_images(images)
    check_all(paths)
    pipeline = load_pipeline(model, device)
    records: list[dict[str, object]] = []
    with progress("understanding", len(paths)) as show:
        for start in range(0, len(paths), pipeline.batch_size):
            batch = paths[start : start + pipeline.batch_size]
            if task == AFFECT:
                for path, found in zip(batch, pipeline.understand(batch), strict=True):
                    records.append({"image": str(path), **asdict(found)})
            else:
                records += ask(pipeline, task, batch)
            show(len(records), len(paths))
    if as_json:
        print_json(records)
        return
    for record in records:
        print_passage(
            f"{record['image']}: {_heading(record)}", TAGS.sub("\n", record["answer"]).strip()
        )


def ask(pipeline: EmoSymPipeline, task: str, images: Sequence[Path]) -> list[dict[str, object]]:
    """Ask one of `prompts.ASKABLE` about each image.

    Returns:
        {"image", "task", "answer", "value"} of each: the words, and what the parser reads in them
        (a number in [0, 1], a label, a list of labels, a text; None where it reads nothing).
    """
    from emosym.tasks.answers import parse

    key, text = prompts.ASKABLE[task]
    questions = [
        Question(id=str(image), task=task, images=(image,), split="test", text=text, scale=UNIT)
        for image in images
    ]
    return [
        {
            "image": question.id,
            "task": task,
            "answer": words,
            "value": parse(words, question).said.get(key),
        }
        for question, words in zip(questions, pipeline.answer(questions), strict=True)
    ]


def _heading(record: dict[str, object]) -> str:
    """Return what was understood of an image, in a line."""
    if "value" in record:
        value = record["value"]
        return (
            "-" if value is None else ", ".join(value) if isinstance(value, tuple) else str(value)
        )
    share = record["probabilities"][record["emotion"]]
    affect = f"valence {signed(record['valence'])}, arousal {signed(record['arousal'])}"
    return f"{record['emotion']} {share:.0%}, {affect}"


def check_all(paths: list[Path]) -> None:
    """Decode every image; raise one UserError that names those that cannot be read."""
    from data_tools.images import check_image
    from data_tools.quarantine import Broken

    broken: list[str] = []
    with progress("checking images", len(paths)) as show:
        for done, path in enumerate(paths, start=1):
            try:
                check_image(path)
            except Broken as reason:
                broken.append(f"{path}: {reason}")
            show(done, len(paths))
    if broken:
        raise UserError(
            f"cannot read {len(broken)} of {len(paths)} images",
            got=", ".join(broken[:3]) + (", ..." if len(broken) > 3 else ""),
            expected="whole image files (JPEG, PNG, ...)",
            fix="replace them or leave them out",
        )
