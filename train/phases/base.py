"""What a phase is, and what it works with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from emosym.errors import UserError
from emosym.interfaces import Answers, Prompts
from emosym.models.generator import Condition
from emosym.models.model import EmoSym
from emosym.models.understander import UnderstanderOutput
from emosym.randomness import Draws
from emosym.records import Question, Sample
from emosym.tasks import prompts
from train.config import TrainConfig
from train.data.dataset import Kind, TrainingSet
from train.data.knowledge import KnowledgeEncoder
from train.data.prompt_features import PromptFeatureCache
from train.distributed import ranks
from train.phases.remember.bank_session import BankSession
from train.reference import FrozenModule, ReferenceModel


@dataclass(slots=True)
class PhaseContext:
    """Everything the phases of a run share."""

    config: TrainConfig
    model: EmoSym
    parts: dict[str, Any]
    """Part -> its DeepSpeed engine, or the bare module of a part that does not train."""
    training_set: TrainingSet
    reference: ReferenceModel
    start: FrozenModule | None
    """The generator as it was at the start; None in a run without `reinforce`."""
    texts: PromptFeatureCache
    """What encodes the decoder's prompts."""
    memory: BankSession
    knowledge: KnowledgeEncoder | None
    """What encodes knowledge texts; None in a run without `compress`."""
    device: torch.device
    save: Callable[[], object]
    """Writes a checkpoint of the state before this step; all ranks together."""

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """Do what may fail for reasons outside the run: then nothing before this step is lost.

        All ranks come by here, and leave together.

        Raises:
            UserError, OSError: what failed.
            ranks.OtherRankError: on the ranks where nothing did.
        """
        try:
            with ranks.raise_together():
                yield
        except (UserError, OSError, ranks.OtherRankError):
            self.save()
            raise

    def ask(self, views: Sequence, text: str = prompts.UNDERSTAND) -> Prompts:
        """Put the question to images, one at a time."""
        asked = self.model.processor.prompts([text] * len(views), [[view] for view in views])
        return asked.to(self.device)

    def pose(self, questions: Sequence[Question]) -> Prompts:
        """Put questions, each to its own images."""
        texts = [question.text for question in questions]
        shown = [
            [self.training_set.image(path) for path in question.images] for question in questions
        ]
        return self.model.processor.prompts(texts, shown).to(self.device)

    def condition(self, reading: UnderstanderOutput, texts: list[str], affect: Tensor) -> Condition:
        """Return what the generator is told; a frozen text encoder reads each prompt once."""
        return Condition(
            text=self.texts(texts),
            unconditional_text=self.texts([""]).expand(len(texts)),
            h_ctx=reading.h_ctx,
            h_emo=reading.h_emo,
            affect=affect,
        )

    def answer(self, samples: Sequence[Sample]) -> Answers:
        """Return the reference answers of samples."""
        texts = [prompts.answer(sample) for sample in samples]
        return self.model.processor.answers(texts).to(self.device)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One micro-batch of one rank: its material and its rows of the step's draws."""

    samples: list[Sample]
    """Samples, or questions in a phase that learns from those."""
    rows: slice
    """Rows of the global batch."""
    total: int
    """Images in the global batch."""
    draws: Draws
    """Fresh for each micro-batch with the same key: draw the global batch and take `rows`."""

    def normal(self, *shape: int) -> Tensor:
        """Return our rows of standard normal draws [total, *shape]."""
        return self.draws.normal(self.total, *shape)[self.rows]

    def uniform(self, *shape: int) -> Tensor:
        """Return our rows of uniform draws [total, *shape]."""
        return self.draws.uniform(self.total, *shape)[self.rows]


class StepOutput(NamedTuple):
    """What a micro-batch gave."""

    loss: Tensor
    metrics: dict[str, Tensor | float]
    """Detached scalars, means over our images; NaN where the batch has nothing to measure."""


class LearningPhase(Protocol):
    """A kind of step that moves weights."""

    name: str
    owns: tuple[str, ...]
    """Parts that the step moves; the loss goes backward through the last one's engine."""
    batch_size: int
    """Global images (or prompts) a step."""
    material: Kind
    """What its batches are made of."""
    replays: bool
    """Whether bank images join its batches."""
    hard_negatives: float
    """Where they do, share of a batch that are real ones showing what others of it show, with
    another emotion."""
    compares: tuple[str, str] | None
    """Metrics of reward and second judge: the run stops when they part. None never stops it."""
    dropout: bool
    """Whether its steps drop inputs of adapters, forward and backward."""

    def loss(self, part: MicroBatch) -> StepOutput:
        """Return the loss of a micro-batch, a mean over its images."""


class ActingPhase(Protocol):
    """A kind of step that moves no weights."""

    name: str
    owns: tuple[()]
    batch_size: int
    """Images a step makes, on all ranks together."""
    dropout: bool
    """False: what acts is the model as it would be used."""

    def run(self, step: int, turn: int) -> dict[str, float]:
        """Act, all ranks together, and return what to log; `turn` steps of it came before."""


def freeze(module: nn.Module) -> None:
    """Exclude a module's parameters from training."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
