"""DeepSpeed: one engine for each part that trains."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from torch import nn

from train.config import EngineConfig, OptimizerConfig
from train.distributed import ranks
from train.distributed.shards import Shards


def deepspeed_config(config: EngineConfig, optimizer: OptimizerConfig) -> dict[str, Any]:
    """Return DeepSpeed's dictionary; every number in it comes from our typed config.

    The batch sizes are nominal: a phase derives its micro-batches from its own global size, and
    DeepSpeed only needs the right number of accumulation steps. Clipping is always set, because
    DeepSpeed's default is to clip at 1.0.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "train_batch_size": config.gradient_accumulation_steps * ranks.size(),
        "gradient_clipping": optimizer.max_grad_norm,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": optimizer.learning_rate,
                "betas": [0.9, 0.999],
                "eps": 1e-8,
                "weight_decay": optimizer.weight_decay,
                "torch_adam": True,
            },
        },
        "zero_optimization": {"stage": config.zero_stage},
        "bf16": {"enabled": config.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def make_engine(part: nn.Module, config: EngineConfig, optimizer: OptimizerConfig) -> Any:
    """Wrap a part in its own DeepSpeed engine over its trainable parameters."""
    trainable = [p for p in part.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=part,
        model_parameters=trainable,
        config=deepspeed_config(config, optimizer),
        dist_init_required=False,
    )
    engine.checkpoint_engine = Shards(engine._config)
    # The scripts that it puts beside the shards unpickle them, and may fail on one rank alone.
    engine._copy_recovery_script = lambda folder: None
    return engine


def prepare(engine: Any, optimizer: OptimizerConfig, rate: float) -> None:
    """Set learning rate, weight decay and clipping of the next optimizer step.

    Loading a checkpoint restores its weight decay and clipping, which a resumed run may change.
    """
    engine.optimizer.clip_grad = optimizer.max_grad_norm
    for group in engine.optimizer.param_groups:
        group["lr"], group["weight_decay"] = rate, optimizer.weight_decay


def learning_rate(engine: Any) -> float:
    """Return the learning rate of the last optimizer step."""
    return engine.optimizer.param_groups[0]["lr"]


def overflowed(engine: Any) -> bool:
    """Return on all ranks whether a gradient of the next step is not finite.

    Call it before `step()`: DeepSpeed would skip the step silently (fp32) or take it (bf16).
    """
    return engine.optimizer.has_overflow()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide DeepSpeed's messages below a warning."""
    logger = logging.getLogger("DeepSpeed")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def precision(config: EngineConfig) -> torch.dtype:
    """Return the type in which a run's weights are loaded."""
    return torch.bfloat16 if config.precision == "bf16" else torch.float32
