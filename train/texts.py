"""The texts that a run will give to its model, checked before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from emosym.errors import UserError
from emosym.models.model import EmoSym
from emosym.records import Question, Sample
from train.config import RunConfig
from train.phases.base import Text
from train.phases.registry import PHASES
from train.schedule import Schedule


def check_texts(
    config: RunConfig,
    model: EmoSym,
    samples: Sequence[Sample],
    questions: Sequence[Question],
) -> None:
    """Check every text that phases and evaluation will read, so that no step fails on one.

    Raises:
        UserError: a text with a control token, or longer than the decoder's text encoder reads;
            with the id of its sample or question.
    """
    phases = list(Schedule(config.stages, PHASES).totals())
    for kind, items in (("sample", samples), ("question", questions)):
        for item in items:
            for text in _texts(config, phases, item):
                try:
                    model.processor.check([text.value])
                    if text.decoder:
                        model.generator.denoiser.tokenize([text.value])
                except UserError as error:
                    raise UserError(f"{kind} {item.id!r} cannot be used: {error}") from error


def _texts(config: RunConfig, phases: Sequence[str], item: Sample | Question) -> Iterable[Text]:
    if item.split == "train":
        kind = "samples" if isinstance(item, Sample) else "questions"
        for name in phases:
            if PHASES[name].batch_kind == kind:
                yield from PHASES[name].texts(config.section(name), item)
    if item.split != "test":
        return
    evaluate = config.evaluate
    if isinstance(item, Question):
        if evaluate.questions:
            yield Text(item.text)
    elif item.prompt is not None and (evaluate.requests or evaluate.grids):
        yield Text(item.prompt, decoder=True)
