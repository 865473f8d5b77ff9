"""DeepSpeed: one engine for each part that trains."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import deepspeed
import torch
from torch import nn

from train.config import EngineConfig, OptimizerConfig
from train.distributed import ranks


def deepspeed_config(config: EngineConfig, optimizer: OptimizerConfig) -> dict[str, Any]:
    """Return DeepSpeed's dictionary; every number in it comes from our typed config.

    The batch sizes are nominal: a phase derives its micro-batches from its own global size, and
    DeepSpeed only needs the number of accumulation steps to be right. Clipping is always stated,
    because DeepSpeed clips at 1.0 when nothing is said.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": config.accumulation,
        "train_batch_size": config.accumulation * ranks.size(),
        "gradient_clipping": optimizer.clip,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": optimizer.lr,
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


def make_engine(part: nn.Module, config: EngineConfig, optimizer: OptimizerConfig):
    """Wrap a part in its own DeepSpeed engine over its trainable parameters."""
    trainable = [p for p in part.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=part,
        model_parameters=trainable,
        config=deepspeed_config(config, optimizer),
        dist_init_required=False,
    )
    return engine


def prepare(engine, optimizer: OptimizerConfig, rate: float) -> None:
    """Make the next optimizer step follow the configuration, at a learning rate.

    A checkpoint brings its own weight decay and clipping along: the run's own word counts.
    """
    engine.optimizer.clip_grad = optimizer.clip
    for group in engine.optimizer.param_groups:
        group["lr"], group["weight_decay"] = rate, optimizer.weight_decay


def overflowed(engine) -> bool:
    """Tell on all ranks whether a gradient of the step that is due is not finite.

    Asked before `step()`: DeepSpeed would skip the step without a word (fp32) or take it (bf16).
    """
    return engine.optimizer.has_overflow()


@contextlib.contextmanager
def quiet():
    """Keep DeepSpeed's set-up chatter out of the terminal; warnings still pass."""
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
