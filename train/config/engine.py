"""How long a run's phases take turns, and how its parts are optimized."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from emosym.errors import UserError
from train.config.ranges import positive, share

STEPS = 9_999_999
"""Most steps of a run: the names of checkpoints have seven digits."""


@dataclass(kw_only=True, slots=True)
class StageConfig:
    """A stretch of steps that repeats one cycle of phases."""

    steps: int
    """Optimizer steps of the stage, all phases together."""
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

    lr: float = 1.0e-3
    """Peak learning rate."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    warmup: int = 50
    """Steps of linear warm-up, counted over the steps that move this part."""
    decay: Literal["constant", "linear", "cosine"] = "cosine"
    """After warm-up: hold, or fall along a line or a half cosine to `floor`."""
    floor: float = 0.05
    """Share of `lr` at the end of the fall."""
    clip: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    ema: float | None = None
    """Decay, in (0, 1), of an average of the part's weights: the run's `model/` and what is
    measured after training are the average's. Null keeps none. Ref: Flow-GRPO (0.9)."""
    ema_every: int = 1
    """Steps that move the part between two updates of its average; 8 for Flow-GRPO."""

    def __post_init__(self) -> None:
        share(math.inf, lr=self.lr, weight_decay=self.weight_decay, clip=self.clip)
        share(math.inf, warmup=self.warmup)
        share(floor=self.floor)
        positive(ema_every=self.ema_every)
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError("ema must be in (0, 1), or null", got=self.ema)


@dataclass(kw_only=True, slots=True)
class EngineConfig:
    """DeepSpeed."""

    zero_stage: Literal[1, 2] = 2
    """Partition optimizer states (1), and gradients (2)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of weights and activations in training."""
    accumulation: int = 1
    """Micro-batches a step: raise it when memory is short. The step stays the same, but for
    what looks at a micro-batch: compress contrasts an image with the texts of its own micro-batch
    only and measures the distance of distillation in the spread of its own, verify_posterior weighs
    the KL by that of its own, verify_grpo counts tokens (and spreads rewards over the batch) in its
    own, autoencode takes the moments of its own (and of its own rank)."""
    gradient_checkpointing: bool = False
    """Recompute the layers of backbone and denoiser in the backward pass: less memory, more time.
    The numbers stay the same. Such a backbone keeps no cache: verify_grpo then reads a prompt once
    for each of its answers, not once for its group."""
    understander: OptimizerConfig = field(default_factory=OptimizerConfig)
    generator: OptimizerConfig = field(default_factory=OptimizerConfig)
    autoencoder: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters of one part; its own layers are frozen."""

    rank: int
    """64 for EmoSym's understander, 32 for Flow-GRPO's decoder."""
    alpha: float
    """The update is scaled by alpha / rank; 128 and 64 there."""
    dropout: float = 0.0
    """Share of inputs hidden from an adapter in training, 0.05 for EmoSym; none in verify_grpo,
    whose answers are sampled and read by the same policy, nor where remember draws. Resuming stays
    exact, but ranks draw for themselves: only at 0 do two ranks equal one."""
    vision: bool = False
    """Of the understander: adapt the vision tower too (EEmo-Logic)."""

    def __post_init__(self) -> None:
        positive(rank=self.rank, alpha=self.alpha)
        if not 0 <= self.dropout < 1:
            raise UserError("dropout must be in [0, 1)", got=self.dropout)


@dataclass(kw_only=True, slots=True)
class AdaptersConfig:
    """Which parts train through adapters; reasoner, heads and conditioner always train whole."""

    understander: LoraConfig | None = None
    """On all linear layers of the language model; embeddings, output projection and, but for its
    own adapters, the vision tower are frozen. Null trains everything."""
    generator: LoraConfig | None = None
    """On the attention of the decoder's transformer. Null trains everything."""
