"""The texts of a dataset and the model that is to read them."""

from __future__ import annotations

from collections.abc import Sequence

from emosym.errors import UserError
from emosym.models.model import EmoSym
from emosym.records import Question, Sample
from train.config import TrainConfig
from train.phases import PHASES
from train.schedule import Schedule


def check_texts(
    config: TrainConfig,
    model: EmoSym,
    samples: Sequence[Sample],
    questions: Sequence[Question],
) -> None:
    """Look at every text that the run will read, before a step far on meets one it cannot.

    Raises:
        UserError: a text with a control token, or longer than the decoder reads, and whose it is.
    """
    used = Schedule(config.stages, tuple(PHASES)).totals()
    shown = {"train"} if used.keys() & {"generate", "remember"} else set()
    lit = {"train"} if "generate" in used and config.generate.emotional_share else set()
    if config.evaluate.requests or config.evaluate.grids:
        shown.add("test")
    told = {"train"} if "compress" in used and config.compress.language_weight else set()
    for sample in samples:
        try:
            if sample.split in shown and sample.prompt is not None:
                _check_prompt(model, sample.prompt)
            if sample.split in lit and sample.emotional_prompt is not None:
                _check_prompt(model, sample.emotional_prompt)
            if sample.split in told and sample.knowledge is not None:
                model.processor.check([sample.knowledge])
        except UserError as error:
            raise UserError(f"sample {sample.id!r} cannot be used: {error}") from error
    if not used.keys() & {"instruct", "verify_grpo"}:
        return
    for question in questions:
        try:
            model.processor.check([question.text])
            if "instruct" in used:
                model.processor.check([question.answer])
        except UserError as error:
            raise UserError(f"question {question.id!r} cannot be used: {error}") from error


def _check_prompt(model: EmoSym, prompt: str) -> None:
    model.processor.check([prompt])
    model.generator.denoiser.tokenize([prompt])
