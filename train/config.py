"""The configuration of a run apart from its phases. Sizes are global: all ranks, all micro-batches.

Each phase adds a section with its own options, see `train.phases.registry.train_config`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from emosym.errors import UserError
from train.ranges import check_positive, check_range

STEPS = 9_999_999
"""Most steps of a run: the names of checkpoints have seven digits."""


@dataclass(kw_only=True, slots=True)
class WorldConfig:
    """An AffectWorld drawn into the run folder."""

    count: int = 0
    """Images; 0 draws none."""
    seed: int = 0
    """Seed of the drawing."""

    def __post_init__(self) -> None:
        check_range(math.inf, count=self.count)
        check_range(2**63 - 1, seed=self.seed)


@dataclass(kw_only=True, slots=True)
class InstructionsConfig:
    """Files of questions with answers, of a layout that `data_tools.questions.eemodb` reads."""

    train: str | None = None
    """Questions to learn from."""
    test: str | None = None
    """Held-out questions."""
    images: str | None = None
    """Folder of the images that the files name."""

    def __post_init__(self) -> None:
        if (self.train or self.test) and not self.images:
            raise UserError("images is missing", fix="name the folder of the files' images")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Where images come from (`path`, or a drawn `world`), and which questions are made of them."""

    path: str | None = None
    """Manifest file, or folder of a known layout (see `emosym data`)."""
    world: WorldConfig = field(default_factory=WorldConfig)
    """Used when `path` is null."""
    tasks: list[str] = field(default_factory=lambda: ["affect"])
    """Questions made of the images' facts, each a task of `emosym.tasks.registry.TASKS`, in equal
    shares; phases `instruct` and `verify_grpo` learn from them."""
    reasons: bool = True
    """Reference answers begin with the knowledge text in <think></think>; else the thinking is
    empty. EEmo-Logic's first stage has answers alone."""
    instructions: InstructionsConfig = field(default_factory=InstructionsConfig)
    """More questions."""
    lexicon_spread: float | None = None
    """Sample valence and arousal for images that have only a label, from the norms of the label's
    word, with this share of the raters' standard deviation. Null adds none. Ref: EmoFeedback², data
    (docs/papers.md)."""
    long_prompts: Literal["refuse", "truncate"] = "refuse"
    """Prompts that are longer than the decoder's text encoder reads: refuse the data, with a list
    of them, or let the encoder read the first tokens, as diffusers does. The understander always
    reads a whole prompt."""
    flip: bool = False
    """Flip half of the training images horizontally (understanding only)."""
    crop: float = 1.0
    """Smallest side of a random training crop, as a share of the image's side; 1 does not crop."""
    image_cache: int = 4096
    """Decoded images kept in memory."""

    def __post_init__(self) -> None:
        check_positive(crop=self.crop, image_cache=self.image_cache)
        if self.lexicon_spread is not None:
            check_range(lexicon_spread=self.lexicon_spread)
        check_range(crop=self.crop)


@dataclass(kw_only=True, slots=True)
class StageConfig:
    """A stretch of steps that repeats one cycle of phases."""

    steps: int
    """Steps of the stage, all phases together. A step is one optimizer update, unless the phase
    takes several on what it sampled (`steps_per_generation`, `num_iterations`)."""
    cycle: dict[str, int]
    """Phase -> consecutive steps in one turn of the cycle, in this order."""

    def __post_init__(self) -> None:
        named = {f"cycle.{name}": steps for name, steps in self.cycle.items()}
        for name, steps in {"steps": self.steps, **named}.items():
            if not 1 <= steps <= STEPS:
                raise UserError(f"{name} must lie in [1, {STEPS}]", got=steps)
        if not self.cycle:
            raise UserError("cycle is empty", fix="name at least one phase")


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW for one part."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "lr": "learning_rate",
        "warmup": "warmup_steps",
        "decay": "lr_scheduler_type",
        "floor": "min_lr_rate",
        "clip": "max_grad_norm",
        "ema": "ema_decay",
        "ema_every": "ema_update_every",
    }

    learning_rate: float = 1.0e-3
    """Peak learning rate."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    warmup_steps: int = 50
    """Linear warm-up, in optimizer updates of this part."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "cosine"
    """After warm-up: constant, or a linear or half-cosine decay to `min_lr_rate`."""
    min_lr_rate: float = 0.05
    """Final learning rate as a share of `learning_rate`."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 does not clip."""
    ema_decay: float | None = None
    """Decay, in (0, 1), of an exponential moving average of the part's weights. The average is
    evaluated after training and saved in the run's `model/`. Null keeps none. Ref: Flow-GRPO (0.9).
    """
    ema_update_every: int = 1
    """Optimizer steps of the part between two updates of the average; 8 for Flow-GRPO."""

    def __post_init__(self) -> None:
        check_range(math.inf, learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        check_range(math.inf, max_grad_norm=self.max_grad_norm, warmup_steps=self.warmup_steps)
        check_range(min_lr_rate=self.min_lr_rate)
        check_positive(ema_update_every=self.ema_update_every)
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError("ema_decay must be in (0, 1), or null", got=self.ema_decay)


@dataclass(kw_only=True, slots=True)
class EngineConfig:
    """DeepSpeed."""

    RENAMED: ClassVar[Mapping[str, str]] = {"accumulation": "gradient_accumulation_steps"}

    zero_stage: Literal[1, 2] = 2
    """Partition optimizer states (1), and gradients (2)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of weights and activations in training."""
    gradient_accumulation_steps: int = 1
    """Micro-batches of an optimizer update on each rank: raise it when memory is short. The update
    stays the same, up to rounding and the dropout masks of `lora`. With 2 or more, phases whose
    losses contrast or compare images (autoencode, compress, verify_posterior) read each image twice
    (GradCache, arXiv 2101.06983)."""
    gradient_checkpointing: bool = False
    """Recompute the layers of backbone and denoiser in the backward pass: less memory, more time,
    the same numbers. The backbone then has no cache: verify_grpo processes a prompt once for each
    of its answers, not once for its group."""
    understander: OptimizerConfig = field(default_factory=OptimizerConfig)
    generator: OptimizerConfig = field(default_factory=OptimizerConfig)
    autoencoder: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """LoRA adapters of one part; the layers that they adapt are frozen."""

    rank: int
    """64 for EmoSym's understander, 32 for Flow-GRPO's decoder."""
    alpha: float
    """The update is scaled by alpha / rank. EmoSym: 128; Flow-GRPO: 64."""
    dropout: float = 0.0
    """Dropout probability of the adapters' inputs, 0.05 for EmoSym. It is off in verify_grpo,
    because sampling and training must use the same policy, and in remember. Resuming is exact at
    any value, but each rank draws its own masks: one rank and two train the same model only at
    0."""
    vision: bool = False
    """Of the understander: adapt the vision tower too (EEmo-Logic)."""

    def __post_init__(self) -> None:
        check_positive(rank=self.rank, alpha=self.alpha)
        if not 0 <= self.dropout < 1:
            raise UserError("dropout must be in [0, 1)", got=self.dropout)


@dataclass(kw_only=True, slots=True)
class AdaptersConfig:
    """Which parts train through adapters; reasoner, heads and conditioner always train in full."""

    understander: LoraConfig | None = None
    """On all linear layers of the language model. Embeddings, output projection and vision tower
    are frozen (`vision` adapts the tower too). Null trains everything."""
    generator: LoraConfig | None = None
    """On the attention of the decoder's transformer. Null trains everything."""


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """What is measured before and after, on held-out images and prompts only.

    A size that is null follows the number of steps (`train.evaluation.sizes`), so that measuring
    does not take longer than a short run.
    """

    before: bool = True
    """Measure the starting model too."""
    images: int | None = None
    """Held-out images to understand; 0 skips it. Null: as many as steps, 32 to 256."""
    answers: bool = True
    """Also sample an answer in words for each (slower)."""
    requests: int | None = None
    """Held-out requests to generate images for; 0 skips it. Null: one for 4 steps, 8 to 64."""
    per_request: int = 2
    """Images for each request."""
    grids: int | None = None
    """Prompts in the valence-arousal grid of the report, 25 images each. Null: one for 100 steps, 1
    to 3."""
    questions: int = 0
    """Held-out questions of each task to answer in words; 0 skips it."""
    every: int = 0
    """Steps between two looks during training; 0 takes none. A look draws the same few requests
    from the same noise into `samples/step-XXXXXXX.png`, and logs held-out scores as
    `evaluate/...`."""

    def __post_init__(self) -> None:
        sizes = {"images": self.images, "requests": self.requests, "grids": self.grids}
        check_range(math.inf, **{name: size or 0 for name, size in sizes.items()})
        check_range(math.inf, questions=self.questions)
        check_range(STEPS, every=self.every)
        check_positive(per_request=self.per_request)
        if self.every and self.images == 0 and self.requests == 0:
            raise UserError(
                "evaluate.every has nothing to measure",
                got="images: 0 and requests: 0",
                fix="give one of them, or set every: 0",
            )


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """A run, apart from its phases; the class that `train_config` returns adds their sections."""

    model: str = "emosym-tiny"
    """Member of the zoo, or a model folder."""
    from_scratch: bool = False
    """Start from random weights instead of the member's (needs a member's name)."""
    reasoning_tokens: int | None = None
    """K; null keeps the model's. Another number starts with new, untrained tokens. The frozen
    reference (judge of the memory bank, anchor of the KL) has the same untrained tokens: first
    train them with `compress` alone, then start a second run of the other phases from that
    model."""
    seed: int = 0
    """All random draws follow from it and the step."""
    data: DataConfig = field(default_factory=DataConfig)
    stages: list[StageConfig]
    """Run in this order."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    lora: AdaptersConfig = field(default_factory=AdaptersConfig)
    freeze: list[Literal["backbone", "denoiser"]] = field(default_factory=list)
    """Pretrained modules that do not train at all. Without its backbone the understander trains
    reasoning tokens and heads only; without its denoiser the generator trains the conditioner only
    (EmoSym, step 3)."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = field(
        default_factory=lambda: ["tensorboard"]
    )
    """Trackers that receive each step's metrics beside metrics.jsonl, as in transformers. W&B and
    trackio are installed and set up by the user; a key is read by them from where they keep it."""
    project: str = "emosym"
    """Project of the run in W&B (unless WANDB_PROJECT is set) and in trackio."""
    save_every: int = 200
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""

    def __post_init__(self) -> None:
        check_positive(save_every=self.save_every, keep=self.keep)
        check_positive(gradient_accumulation_steps=self.engine.gradient_accumulation_steps)
        check_range(2**63 - 1, seed=self.seed)
        if self.lora.generator is not None and self.lora.generator.vision:
            raise UserError("lora.generator.vision is true, but a decoder has no vision tower")
        adapted = {"backbone": self.lora.understander, "denoiser": self.lora.generator}
        for module in self.freeze:
            if adapted[module] is not None:
                raise UserError(
                    f"freeze names the {module}, which lora adapts", fix="leave one of them out"
                )
        check_range(math.inf, reasoning_tokens=self.reasoning_tokens or 0)
        if not self.stages:
            raise UserError("stages is empty", fix="name at least one stage")
        if sum(stage.steps for stage in self.stages) > STEPS:
            raise UserError(f"all stages together must lie in [1, {STEPS}] steps")

    def section(self, name: str) -> Any:
        """Return the section of a phase."""
        return getattr(self, name)
