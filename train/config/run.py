"""A run's configuration: all sections together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from emosym.errors import UserError
from train.config.data import DataConfig
from train.config.engine import STEPS, AdaptersConfig, EngineConfig, StageConfig
from train.config.generation import (
    AutoencodeConfig,
    GenerateConfig,
    ReinforceConfig,
    RememberConfig,
)
from train.config.ranges import positive, share
from train.config.understanding import (
    CompressConfig,
    InstructConfig,
    VerifyGrpoConfig,
    VerifyPosteriorConfig,
)


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """What is measured before and after, on held-out images and prompts only."""

    before: bool = True
    """Measure the starting model too."""
    images: int = 256
    """Held-out images to understand; 0 skips it."""
    answers: bool = True
    """Also sample an answer in words for each (slower)."""
    requests: int = 64
    """Held-out requests to draw; 0 skips it."""
    per_request: int = 2
    """Images for each request."""
    grids: int = 3
    """Prompts in the V-A grid of the report."""
    questions: int = 0
    """Held-out questions of each task to answer in words; 0 skips it."""

    def __post_init__(self) -> None:
        share(math.inf, images=self.images, requests=self.requests, grids=self.grids)
        share(math.inf, questions=self.questions)
        positive(per_request=self.per_request)


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """A run."""

    model: str = "emosym-tiny"
    """Member of the zoo, or a model folder."""
    from_scratch: bool = False
    """Start from random weights instead of the member's (needs a member's name)."""
    reasoning_tokens: int | None = None
    """K; null keeps the model's. Another number than the model's starts these tokens anew. The
    frozen reference, judge of `remember` and anchor of `verify`, starts with the same ones: teach
    them with `compress` first, and give the model it leaves to a run of the other phases."""
    seed: int = 0
    """All randomness follows from it and the step."""
    data: DataConfig = field(default_factory=DataConfig)
    stages: list[StageConfig]
    """Run in this order."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    lora: AdaptersConfig = field(default_factory=AdaptersConfig)
    freeze: list[Literal["backbone", "denoiser"]] = field(default_factory=list)
    """Pretrained parts that do not train at all: without its backbone the understander learns
    through reasoning tokens and heads, without its denoiser the generator through the conditioner
    (EmoSym, step 3)."""
    compress: CompressConfig = field(default_factory=CompressConfig)
    instruct: InstructConfig = field(default_factory=InstructConfig)
    verify_posterior: VerifyPosteriorConfig = field(default_factory=VerifyPosteriorConfig)
    verify_grpo: VerifyGrpoConfig = field(default_factory=VerifyGrpoConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
    remember: RememberConfig = field(default_factory=RememberConfig)
    autoencode: AutoencodeConfig = field(default_factory=AutoencodeConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    save_every: int = 200
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""

    def __post_init__(self) -> None:
        positive(save_every=self.save_every, keep=self.keep)
        positive(accumulation=self.engine.accumulation)
        share(2**63 - 1, seed=self.seed)
        if self.lora.generator is not None and self.lora.generator.vision:
            raise UserError("lora.generator.vision is true, but a decoder has no vision tower")
        if self.lora.generator is not None and self.generate.train_text_encoder:
            raise UserError(
                "lora.generator freezes the decoder, but generate.train_text_encoder trains a part",
                fix="set one of them to null or false",
            )
        adapted = {"backbone": self.lora.understander, "denoiser": self.lora.generator}
        for part in self.freeze:
            if adapted[part] is not None:
                raise UserError(
                    f"freeze names the {part}, which lora adapts", fix="leave one of them out"
                )
        if "denoiser" in self.freeze and self.generate.train_text_encoder:
            raise UserError(
                "freeze names the denoiser, but generate.train_text_encoder trains a part of it",
                fix="set one of them to [] or false",
            )
        share(math.inf, reasoning_tokens=self.reasoning_tokens or 0)
        if self.from_scratch and self.compress.reconstruct_weight:
            raise UserError(
                "compress.reconstruct_weight needs a language model that can tell a text",
                got="from_scratch=true, whose starting weights are random",
                fix="set it to 0, or train a base with compress.language_weight first",
            )
        if not self.stages:
            raise UserError("stages is empty", fix="name at least one stage")
        if sum(stage.steps for stage in self.stages) > STEPS:
            raise UserError(f"all stages together must lie in [1, {STEPS}] steps")
