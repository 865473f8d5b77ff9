"""All measurements of a model on held-out images, prompts and questions, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from data_tools.affectworld.truth import oracle
from data_tools.affectworld.world import SOURCE
from emosym.errors import UserError
from emosym.inference.sheets import caption, contact_sheet, stacked
from emosym.interfaces import EmotionModel, Recogniser
from emosym.records import Question, Sample
from emosym.tasks.affect import affect_question
from emosym.tasks.answers import parse
from emosym.tasks.base import Answer
from eval.generation.grid import affect_grid
from eval.generation.measure import GenerationScores, evaluate_generation
from eval.generation.requests import requests_from
from eval.share import ALONE, Processes, in_batches
from eval.tasks.measure import TaskScores, evaluate_tasks
from eval.tasks.understanding import UnderstandingScores, evaluate_understanding

SHEET = 32
"""Images in the contact sheet of a report."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Measurements; None for those that were not requested."""

    understanding: UnderstandingScores | None
    generation: GenerationScores | None
    sheet: Image.Image | None
    """Some of the scored images with their requests."""
    tasks: dict[str, TaskScores] | None
    """Scores of the questions, by task."""

    def to_dict(self) -> dict[str, dict[str, object] | None]:
        """Return plain data for each section of a report; None for one that was not requested."""
        tasks: dict[str, object] | None = None
        if self.tasks is not None:
            tasks = {task: scores.to_dict() for task, scores in self.tasks.items()}
        return {
            "understanding": None if self.understanding is None else self.understanding.to_dict(),
            "generation": None if self.generation is None else self.generation.to_dict(),
            "tasks": tasks,
        }


def measure(
    model: EmotionModel,
    judge: Recogniser,
    samples: Sequence[Sample],
    *,
    images: int,
    requests: int,
    per_request: int,
    answers: bool,
    seed: int,
    questions: Sequence[Question] = (),
    processes: Processes = ALONE,
) -> HeldOut:
    """Measure a model on the test split.

    Args:
        model: the model under test.
        judge: recognises emotions in the generated images.
        samples: the whole dataset; the training split is used for the mean baseline only.
        images: most images to understand, picked by `seed`; 0 skips understanding.
        requests: most generation requests; 0 skips generation.
        per_request: images for each request.
        answers: also generate answer texts, and measure the share of them that parses.
        seed: of the picks and of the noise.
        questions: answered in text and scored by task; those of the test split only.
        processes: those that share the work; all of them get the same result.
    """
    held_out = [sample for sample in samples if sample.split == "test"]
    if (images or requests) and not held_out:
        raise UserError("the dataset has no held-out images", expected="split 'test'")
    understanding = generation = sheet = tasks = None
    if images:
        understanding = evaluate_understanding(
            model,
            held_out_images(held_out, images, seed),
            train=[sample for sample in samples if sample.split == "train"],
            parse=_well_formed if answers else None,
            seed=seed,
            processes=processes,
        )
    if requests:
        shown: list[tuple[Image.Image, str]] = []
        # Only AffectWorld's truth can be computed from pixels.
        is_world = all(sample.source == SOURCE for sample in held_out)
        generation = evaluate_generation(
            model,
            requests_from(samples, requests, seed),
            judge=judge,
            oracle=oracle if is_world else None,
            seed=seed,
            images_per_request=per_request,
            processes=processes,
            show=lambda wanted, image: shown.append((image, caption(wanted.request))),
            shown=SHEET,
        )
        sheet = contact_sheet(*zip(*shown, strict=True))
    if test_questions := [question for question in questions if question.split == "test"]:
        tasks = evaluate_tasks(model, test_questions, seed=seed, processes=processes)
    return HeldOut(understanding, generation, sheet, tasks)


def held_out_images(held_out: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Return up to `count` held-out samples, spread evenly over the order of their ids."""
    ordered = sorted(held_out, key=lambda sample: sample.id)
    if len(ordered) <= count:
        return ordered
    stride = len(ordered) / count
    return [ordered[int((place + (seed % 97) / 97) * stride)] for place in range(count)]


def grids(
    model: EmotionModel,
    samples: Sequence[Sample],
    count: int,
    seed: int,
    processes: Processes = ALONE,
) -> Image.Image | None:
    """Return the valence-arousal grids of `count` held-out prompts, or None for 0."""
    if not count:
        return None
    requests = requests_from(samples, 8 * count, seed)
    prompts = list(dict.fromkeys(one.request.prompt for one in requests if one.request.prompt))
    if not prompts:
        return None
    sheets = in_batches(
        prompts[:count],
        lambda batch: [affect_grid(model, prompt, seed) for prompt in batch],
        what="drawing grids of 25 images",
        processes=processes,
        batch=1,
    )
    return stacked(sheets)


def _well_formed(text: str, sample: Sample) -> Answer | None:
    question = affect_question(sample)
    answer = parse(text, question) if question is not None else Answer(False)
    return answer if answer.well_formed else None
