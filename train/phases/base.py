"""The base class of the phases of training, and what a phase works with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from emosym.errors import UserError
from emosym.interfaces import Answers, Prompts
from emosym.models.generator import Condition
from emosym.models.model import EmoSym, ModelConfig
from emosym.models.understander import UnderstanderOutput
from emosym.records import Question, Sample
from emosym.tasks.affect import AFFECT_PROMPT, affect_reply
from train.config import RunConfig
from train.data.bank_session import BankConfig, BankSession
from train.data.dataset import Kind, TrainingSet
from train.data.knowledge import KnowledgeConfig, KnowledgeEncoder
from train.data.prompt_features import PromptFeatureCache
from train.distributed import ranks
from train.micro_batches import Item, MicroBatch
from train.reference import FrozenModule, ReferenceModel

Need = Literal["bank", "knowledge", "start"]
"""What a run builds only for phases that need it: the memory bank (`bank`), the encoder of
knowledge texts (`knowledge`), a frozen copy of the starting generator (`start`)."""
SECTIONS: Mapping[Need, type] = {"bank": BankConfig, "knowledge": KnowledgeConfig}
"""Need -> class with its options; a phase with this need derives its `Config` from it."""

Settings = TypeVar("Settings")


@dataclass(slots=True)
class PhaseContext:
    """What a run gives its phases; all of them share one."""

    config: RunConfig
    model: EmoSym
    parts: dict[str, Any]
    """Part -> its DeepSpeed engine, or the bare module of a part that does not train."""
    training_set: TrainingSet
    reference: ReferenceModel
    starting_generator: FrozenModule[Tensor] | None
    """The generator with its starting weights; None where no phase needs `start`."""
    prompt_features: PromptFeatureCache
    """Encodes the decoder's prompts."""
    memory: BankSession
    knowledge_encoder: KnowledgeEncoder | None
    """Encodes knowledge texts; None where no phase needs `knowledge`."""
    device: torch.device
    save: Callable[[], object]
    """Writes a checkpoint of the state before this step; all ranks call it together."""

    @contextlib.contextmanager
    def save_on_failure(self) -> Iterator[None]:
        """Save the state before this step if something outside the run fails.

        Wrap reading of files and calls of services in it. All ranks must enter it, and all ranks
        stop together.

        Raises:
            UserError, OSError: what failed.
            ranks.OtherRankError: on the ranks where nothing failed.
        """
        try:
            with ranks.raise_together():
                yield
        except (UserError, OSError, ranks.OtherRankError):
            self.save()
            raise

    def image_prompts(self, images: Sequence[Image.Image], text: str = AFFECT_PROMPT) -> Prompts:
        """Return one prompt for each image, all with the same question."""
        tokens = self.model.processor.prompts([text] * len(images), [[image] for image in images])
        return tokens.to(self.device)

    def question_prompts(self, questions: Sequence[Question]) -> Prompts:
        """Return one prompt for each question, with the question's own images."""
        texts = [question.text for question in questions]
        images = [
            [self.training_set.image(path) for path in question.images] for question in questions
        ]
        return self.model.processor.prompts(texts, images).to(self.device)

    def reference_answers(self, samples: Sequence[Sample]) -> Answers:
        """Return the reference answers of samples to the question `AFFECT_PROMPT`."""
        return self.answers([affect_reply(sample) for sample in samples])

    def answers(self, texts: Sequence[str]) -> Answers:
        """Return texts as answers of the assistant."""
        return self.model.processor.answers(texts).to(self.device)

    def condition(self, output: UnderstanderOutput, texts: list[str], affect: Tensor) -> Condition:
        """Return the generator's condition for B prompts, their states and wanted affect [B, 2]."""
        return Condition(
            text=self.prompt_features(texts),
            unconditional_text=self.prompt_features([""]).expand(len(texts)),
            h_ctx=output.h_ctx,
            h_emo=output.h_emo,
            affect=affect,
        )


class StepOutput(NamedTuple):
    """The loss and the metrics of one micro-batch."""

    loss: Tensor
    """A mean over our items. The engines average it over micro-batches and ranks."""
    metrics: Mapping[str, Tensor | float]
    """Detached: name -> a mean over our items, or one number for each where some may have none
    (NaN). The step's metric is the mean over its items that have one."""
    maxima: Mapping[str, Tensor | float] = {}
    """Detached: name -> a largest value. The step's is the largest of all micro-batches."""


class Text(NamedTuple):
    """A text that a run will give to the language model."""

    value: str
    decoder: bool = False
    """Whether the decoder's text encoder reads it too, which has a longest length."""


class Alarm(NamedTuple):
    """Why a monitor stops the run."""

    problem: str
    got: str
    fix: str


class StepAbandoned(Exception):  # noqa: N818  not an error of the program
    """A step has nothing to train on: it counts as done, and the run stops after it.

    `prepare` raises it on all ranks together.
    """

    def __init__(self, alarm: Alarm, metrics: dict[str, float]) -> None:
        super().__init__(alarm.problem)
        self.alarm = alarm
        self.metrics = metrics
        """Of the step."""


class Phase(Generic[Settings, Item]):
    """A kind of training step; one instance lives as long as the run.

    A step calls `prepare` once, then takes `num_iterations * steps_per_generation` optimizer
    updates, each on the mean of `loss` over its micro-batches. A subclass sets `name` and `Config`
    and defines `loss`; a phase that trains no weights defines `act` instead. Everything else has a
    default. `__init__` may raise `UserError` for a training set that the phase cannot use.
    """

    name: ClassVar[str]
    """Its name in a stage's cycle, in the registry, and its section in a preset."""
    Config: ClassVar[type[Any]]
    """Dataclass of its options, all with defaults. A phase that learns has `batch_size` there."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """What the run must make for it; see `SECTIONS` for the options that come with a need."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Options that cannot change when a run is resumed."""
    batch_kind: ClassVar[Kind] = "samples"
    """What its batches are made of."""
    replays: ClassVar[bool] = False
    """Whether images of the memory bank join its batches."""
    dropout: ClassVar[bool] = True
    """Whether adapters drop inputs in its steps."""
    owns: tuple[str, ...] = ()
    """Parts whose weights its steps update, of `EmoSym.PARTS`; the part nearest to the loss comes
    last. A phase that owns no part defines `act` instead of `loss`."""
    hard_negatives: float = 0.0
    """For a phase that replays: largest share of hard negatives in a batch, see
    `BankSession.contrast`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for need, section in SECTIONS.items():
            if need in cls.needs and not issubclass(cls.Config, section):
                raise TypeError(
                    f"{cls.__name__} needs {need!r}: derive its Config from {section.__name__}"
                )

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.config: Settings = getattr(context.config, self.name)

    # Class methods: called with the phase's section before an instance exists.

    @classmethod
    def check(cls, config: Settings, run: RunConfig) -> None:
        """Raise UserError where the section contradicts another section of the run."""

    @classmethod
    def resolve_paths(cls, config: Settings) -> None:
        """Make paths in the section absolute: a run may be resumed from another folder."""

    @classmethod
    def texts(cls, config: Settings, item: Item) -> Iterable[Text]:
        """Yield every text of a training item, of `batch_kind`, that its steps will read.

        They are checked before the first step, so that no step fails on a text.
        """
        return ()

    @classmethod
    def unfreezes(cls, config: Settings, model: EmoSym) -> Sequence[nn.Module]:
        """Return modules to train that are frozen by default (autoencoder, text encoder)."""
        return ()

    # Methods: called while the run trains.

    @property
    def batch_size(self) -> int:
        """Return the items of a step, all ranks and micro-batches together."""
        config: Any = self.config
        return config.batch_size

    @property
    def steps_per_generation(self) -> int:
        """Return the optimizer updates that the items of a step are divided into."""
        return steps_per_generation(self.config)

    @property
    def num_iterations(self) -> int:
        """Return how often a step passes over its items; each pass takes all its updates."""
        return getattr(self.config, "num_iterations", 1)

    def prepare(self, batches: Sequence[MicroBatch[Item]]) -> Sequence[Any]:
        """Return what a step works out without gradient before its first update.

        For answers and images that are sampled and scored, and for what a loss needs of the whole
        step: `train.micro_batches.gather` collects it from all micro-batches and ranks.

        Args:
            batches: this rank's micro-batches of all updates, in order.

        Returns:
            One value for each, which `loss` reads as `batch.prepared` in every pass.

        Raises:
            StepAbandoned: there is nothing to train on.
        """
        return [None] * len(batches)

    def loss(self, batch: MicroBatch[Item]) -> StepOutput:
        """Return the loss of a micro-batch.

        The mean of this loss over the micro-batches and ranks of an update is what the update
        descends. It must not depend on their number: a mean over items does not. A loss of items
        together uses `batch.join`, and a denominator that is not the number of items (tokens,
        say) is that of the whole update, from `prepare`.
        """
        raise UserError(f"the phase {self.name!r} owns parts, but has no loss", fix="define loss")

    def act(self, step: int, turn: int) -> dict[str, float]:
        """Do a step that trains no weights, all ranks together, and return its metrics.

        Args:
            step: of the run.
            turn: number of earlier steps of this phase.
        """
        raise UserError(f"the phase {self.name!r} owns no part, and has no act", fix="define act")

    def monitor(self, metrics: dict[str, float], history: list[list[float]]) -> Alarm | None:
        """Watch the metrics of its step; return an alarm to stop the run after this step.

        Args:
            metrics: of the step, the same on all ranks; the method may add some.
            history: rows that the monitor keeps between steps. It changes them in place; they are
                part of checkpoints. Clear them with an alarm, or a resumed run stops again at once.
        """
        return None

    def notices(self) -> Iterable[str]:
        """Yield what a user should know when the run starts."""
        return ()

    def final_model_config(self, config: ModelConfig) -> ModelConfig:
        """Return the configuration of the model that the run saves.

        A phase that learns from questions adds their tasks.
        """
        if self.batch_kind != "questions":
            return config
        asked = {question.task for question in self.context.training_set.all("questions")}
        return dataclasses.replace(config, tasks=sorted({*config.tasks, *asked}))


def steps_per_generation(section: object) -> int:
    """Return the optimizer updates that a step of a phase is divided into, from its section."""
    return getattr(section, "steps_per_generation", 1)


def freeze(module: nn.Module) -> None:
    """Exclude a module's parameters from training."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
