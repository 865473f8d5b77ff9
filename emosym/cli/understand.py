"""`emosym understand`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emosym.affect.scales import UNIT
from emosym.cli.files import expand_images, notice
from emosym.cli.loading import load_pipeline
from emosym.console.options import DEFAULT_MODEL, AsJson, Device, Model, Plugins
from emosym.console.progress import progress
from emosym.console.tables import signed
from emosym.console.terminal import print_json, print_passage
from emosym.errors import UserError, unknown
from emosym.pictures.formats import NAMES
from emosym.records import Question, split_answer

if TYPE_CHECKING:
    from emosym.inference.pipeline import EmoSymPipeline

AFFECT = "affect"
TASK_NAMES = "affect, valence, arousal, dominance, ranking, dominant, description"
"""The built-in image tasks, for the help text, which must not import the registry and NumPy."""
"""The task that the heads predict; the others are answered in text."""


def understand(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    plugins: Plugins = None,
    task: Annotated[str, typer.Option(help=f"What to predict: {TASK_NAMES}.")] = AFFECT,
    as_json: AsJson = False,
) -> None:
    """Predict the emotion that each image evokes, with valence and arousal from -3 to 3.

    Every image is checked first; a broken one is an error, and nothing is predicted.

    Other tasks are questions that a model trained for them answers in text. Their ratings are from
    0 to 1.
    """
    from emosym.tasks.registry import image_tasks

    if task not in image_tasks():
        raise unknown("task", task, image_tasks())
    paths = expand_images(images)
    check_all(paths)
    pipeline = load_pipeline(model, device)
    records: list[dict[str, Any]] = []
    with progress("understanding", len(paths)) as show:
        for start in range(0, len(paths), pipeline.batch_size):
            batch = paths[start : start + pipeline.batch_size]
            if task == AFFECT:
                for path, understanding in zip(batch, pipeline.understand(batch), strict=True):
                    records.append({"image": str(path), **understanding.to_dict()})
            else:
                records += ask(pipeline, task, batch)
            show(len(records), len(paths))
    _warn(pipeline, task, records)
    if as_json:
        print_json(records)
        return
    for record in records:
        words = [text for text in (record["thought"], record["answer"]) if text]
        print_passage(f"{record['image']}: {_heading(record)}", "\n".join(words))


def ask(pipeline: EmoSymPipeline, task: str, images: Sequence[Path]) -> list[dict[str, Any]]:
    """Ask the question of a task, one of `image_tasks`, about each image.

    Returns:
        {"image", "task", "answer", "thought", "value", "unlike_training"} of each image: the texts,
        the parsed value (a number in [0, 1], a label, a tuple of labels, or a text; None where it
        cannot be parsed).
    """
    from emosym.pictures.loading import load_image
    from emosym.tasks.answers import parse
    from emosym.tasks.registry import TASKS

    known = pipeline.model.training_images
    (key,), text = TASKS[task].keys, TASKS[task].prompt or ""
    questions = [
        Question(id=str(image), task=task, images=(image,), split="test", text=text, scale=UNIT)
        for image in images
    ]
    return [
        {
            "image": question.id,
            "task": task,
            "answer": split_answer(answer)[1],
            "thought": split_answer(answer)[0],
            "value": parse(answer, question).values.get(key),
            "unlike_training": None if known is None else known.unlike(load_image(question.id)),
        }
        for question, answer in zip(questions, pipeline.answer(questions), strict=True)
    ]


def _warn(pipeline: EmoSymPipeline, task: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Say on stderr why answers may mean nothing: an untrained task, answers without a value."""
    known = pipeline.model.config.tasks
    if task not in known:
        print(
            f"warning: the model was not trained on the task {task!r}, so its answers mean little;"
            f" it was trained on {', '.join(known) or 'none'}",
            file=sys.stderr,
        )
    strange = [r["image"] for r in records if r["unlike_training"]]
    notice("unlike the images that the model was trained on, so these are guesses", strange)
    if task != AFFECT:
        notice("answers without a value", [r["image"] for r in records if r["value"] is None])


def _heading(record: Mapping[str, Any]) -> str:
    """Return the prediction for an image, in one line."""
    if "value" in record:
        value = record["value"]
        return (
            "-" if value is None else ", ".join(value) if isinstance(value, tuple) else str(value)
        )
    probability = record["probabilities"][record["emotion"]]
    affect = f"valence {signed(record['valence'])}, arousal {signed(record['arousal'])}"
    return f"{record['emotion']} {probability:.0%}, {affect}"


def check_all(paths: list[Path]) -> None:
    """Decode every image; raise one UserError that names all broken ones.

    What is ignored in an image (see `load_image`) is named on stderr.
    """
    from emosym.pictures.loading import UnreadableImage, check_image

    broken: list[str] = []
    notes: list[str] = []
    with progress("checking images", len(paths)) as show:
        for done, path in enumerate(paths, start=1):
            try:
                notes += [f"{path}: {why}" for why in check_image(path)]
            except UnreadableImage as error:
                broken.append(f"{path}: {error.reason}")
            show(done, len(paths))
    if broken:
        raise UserError(
            f"cannot read {len(broken)} of {len(paths)} images",
            got=", ".join(broken[:3]) + (", ..." if len(broken) > 3 else ""),
            expected=f"whole images: {NAMES}",
            fix="replace them or leave them out",
        )
    notice("ignored", notes)
