"""The texts that a run will give to its model, checked before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from emosym.errors import UserError
from emosym.models.model import EmoSym
from emosym.records import Question, Sample
from train.config import RunConfig
from train.phases.base import Text
from train.phases.registry import PHASES
from train.schedule import Schedule

BATCH_SIZE = 512
"""Prompts that are tokenised at once."""
MOST_NAMED = 10
"""Texts that a message names; of more it tells the number."""


class CheckedTexts(NamedTuple):
    """What a user should know of the texts of a run."""

    notices: list[str]
    """Which prompts will be truncated."""
    truncated_prompts: int
    """How many these are."""


def check_texts(
    config: RunConfig,
    model: EmoSym,
    samples: Sequence[Sample],
    questions: Sequence[Question],
) -> CheckedTexts:
    """Check every text that phases and evaluation will read, so that no step fails on one.

    Raises:
        UserError: texts with a control token, or longer than the decoder's text encoder reads
            (unless `data.long_prompts` truncates them); names them with the ids of their samples.
    """
    texts = list(_texts(config, samples, questions))
    wrong = []
    for name, text in texts:
        try:
            model.processor.check([text.value])
        except UserError as error:
            wrong.append(f"{name}: {error}")
    window = model.generator.denoiser.prompt_window
    counts = _count_tokens(model, {text.value for _, text in texts if text.decoder})
    long = [
        f"{name}: {counts[text.value]} tokens, {text.value[:40]!r}…"
        for name, text in texts
        if text.decoder and counts[text.value] > window
    ]
    notices, truncated = [], 0
    if config.data.long_prompts == "truncate" and long:
        what = f"the decoder reads the first {window} tokens of {len(long)} longer prompts: "
        notices, truncated, long = [what + _listed(long)], len(long), []
    if wrong or long:
        raise UserError(
            f"{len(wrong + long)} texts of the data cannot be used",
            got=_listed(wrong + long),
            expected=f"prompts of at most {window} tokens" if long else None,
            fix="shorten them, or set data.long_prompts=truncate" if long else "correct them",
        )
    return CheckedTexts(notices, truncated)


def _count_tokens(model: EmoSym, prompts: Iterable[str]) -> dict[str, int]:
    """Return prompt -> number of its tokens."""
    unique = sorted(prompts)
    counts: dict[str, int] = {}
    for start in range(0, len(unique), BATCH_SIZE):
        batch = unique[start : start + BATCH_SIZE]
        counts |= zip(batch, model.generator.denoiser.count_tokens(batch), strict=True)
    return counts


def _listed(items: Sequence[str]) -> str:
    more = [f"and {len(items) - MOST_NAMED} more"] if len(items) > MOST_NAMED else []
    return "; ".join([*items[:MOST_NAMED], *more])


def _texts(
    config: RunConfig, samples: Sequence[Sample], questions: Sequence[Question]
) -> Iterator[tuple[str, Text]]:
    """Yield the texts that are read, each with the name of its item."""
    phases = list(Schedule(config.stages, PHASES).totals())
    items: list[Sample | Question] = [*samples, *questions]
    for item in items:
        kind = "sample" if isinstance(item, Sample) else "question"
        for text in dict.fromkeys(_texts_of(config, phases, item)):
            yield f"{kind} {item.id!r}", text


def _texts_of(config: RunConfig, phases: Sequence[str], item: Sample | Question) -> Iterable[Text]:
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
