"""What is measured inside a process that trains; tests assert on what comes back."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import train.__main__
import train.run
from data_tools.dataset import open_dataset
from emosym.config import load_config
from emosym.model import EmoSym
from emosym.records import Sample
from emosym.rewards import REWARDS
from model_zoo import zoo
from train import ranks
from train.base_texts import base_texts
from train.config import TrainConfig
from train.trainer import Trainer

TIMING = ("samples_per_s", "peak_memory_gb")
TOY = {"toy": 1.0, "format": 0, "emotion": 0, "affect_threshold": 0}
"""Only the reward of `toy_reward`."""


def settings(model: Path, data: Path, **sections: Any) -> dict[str, Any]:
    """Return a preset of small sizes; `sections` are merged over it."""
    optimizer = {"lr": 2e-3, "weight_decay": 0.1, "warmup": 2}
    whole: dict[str, Any] = {
        "model": str(model),
        "data": {"path": str(data)},
        "engine": {"understander": optimizer, "generator": optimizer, "autoencoder": optimizer},
        "compress": {"batch_size": 4},
        "verify_posterior": {"batch_size": 4},
        "verify_grpo": {"batch_size": 2, "group": 2, "answer_tokens": 6},
        "generate": {"batch_size": 4},
        "autoencode": {"batch_size": 4},
        "remember": {
            "per_emotion": 1,
            "real": 2,
            "top_share": 1.0,
            "affect_bound": 6.0,
            "novelty": 1.0,
        },
        "evaluate": {"before": False, "images": 0, "requests": 0, "grids": 0},
        "save_every": 100,
    }
    return _merge(whole, sections)


def write_model(folder: Path) -> None:
    """Write a random model: the tiny member's architecture, narrower still."""
    spec = copy.deepcopy(zoo.preset("emosym-tiny"))
    spec["model"] |= {"reasoning_tokens": 4, "hidden": 24, "steps": 4}
    spec["backbone"]["text_config"] |= {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 4, 4]},
    }
    spec["backbone"]["vision_config"] |= {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "fullatt_block_indexes": [0],
        "out_hidden_size": 48,
    }
    spec["transformer"] |= {
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 32,
    }
    spec["text_encoder"] |= {"d_model": 32, "d_kv": 16, "num_heads": 2, "num_layers": 1, "d_ff": 48}
    spec["vae"] |= {"block_out_channels": [8, 8, 8], "norm_num_groups": 4}
    with patch.object(zoo, "preset", lambda name: spec):
        zoo.save(zoo.build("emosym-tiny", base_texts(1500, 0), 0), folder)


@contextlib.contextmanager
def trainer(run: Path, whole: dict[str, Any]) -> Iterator[Trainer]:
    """Give a trainer in a run folder, at the run's last checkpoint."""
    config = load_config(TrainConfig, None, base=whole)
    folder = zoo.folder_of(config.model)
    samples = open_dataset(Path(config.data.path))
    if ranks.is_first():
        run.mkdir(parents=True, exist_ok=True)
    ranks.barrier()
    train.run.check_sizes(config)
    made = Trainer(config, run, zoo.load(folder), samples, zoo.fingerprint(folder))
    made.restore()
    try:
        yield made
    finally:
        made.close()


def weights(model: EmoSym) -> dict[str, torch.Tensor]:
    """Return a copy of all weights, by name."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `over` merged into `base`; a cycle replaces the other whole."""
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _merge(base[name], value) if both else value
    return merged


@contextlib.contextmanager
def toy_reward() -> Iterator[None]:
    """Reward letters 'a' in an answer: a random policy earns some, and can earn more."""

    def toy(text: str, sample: Sample) -> float:
        return min(text.count("a"), 4) / 4

    with patch.dict(REWARDS, {"toy": toy}), patch("train.phases.verify.parse", str):
        yield


def outcome(run: Path, wholes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Run each named preset to its end; return weights, rows and bank of each."""
    found = {}
    for name, whole in wholes.items():
        with toy_reward(), trainer(run / name, whole) as made:
            before = weights(made.bench.model)
            made.train()
            bank = made.bench.memory.bank
            found[name] = {
                "before": before,
                "weights": weights(made.bench.model),
                "bank": bank and [dataclasses.asdict(entry) for entry in bank.entries()],
            }
        ranks.barrier()
        found[name]["rows"] = rows(run / name)
    return found


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics without what a clock or the machine decides."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMING} for row in found]
