"""The objective of a step does not depend on how it is cut into ranks and micro-batches.

The gradient of one step of each phase is that of the uncut step, with labels, texts and ratings
missing here and there, answers of different lengths, and questions of different tasks.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from deepspeed.utils import safe_get_full_grad
from torch import Tensor

from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from data_tools.manifest import write_manifest
from emosym.models.losses import class_posterior, kl_weight
from tests.train import probes
from tests.train.processes import in_ranks
from train.distributed import engines
from train.phases import verify_posterior
from train.phases.registry import PHASES

CUTS = [(1, 4), (2, 2), (4, 1)]
"""Ranks and micro-batches of each; a step has 8 items."""
WORDS = {
    "language_weight": 0.5,
    "distil_weight": 1.0,
    "reconstruct_weight": 0.5,
    "knowledge_weight": 1.0,
}
GRPO = {
    "num_generations": 4,
    "max_completion_length": 10,
    "beta": 0.1,
    "reward_weights": {**probes.TOY, "similarity": 1.0, "affect_gaussian": 1.0, "length": 0.5},
}
CLIPPED = {"epsilon": 0.01, "epsilon_high": 0.02}
CLIPPING = {
    **dict.fromkeys(("grpo", "dr_grpo", "bnpo", "dapo"), CLIPPED),
    "cispo": {"epsilon_high": 1.02},
    "sapo": {},
}
"""Loss -> its options of clipping, narrow enough to act."""
BOTH_TASKS = {"data": {"tasks": ["arousal", "dominant"]}}
PARTIAL = {"compress", "instruct", "generate", "autoencode", "verify_grpo"}
"""Phases that accept images without a label."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "autoencode": ("autoencode", {"autoencode": {"moment_weight": 1.0}}),
    "compress": ("compress", {"compress": WORDS}),
    "augmented": ("compress", {"data": {"flip": True, "crop": 0.6}}),
    "instruct": ("instruct", {"data": {"tasks": ["affect", "valence", "dominant"]}}),
    "verify_posterior": ("verify_posterior", {}),
    "generate": ("generate", {"generate": {"update_understander": True, "image_share": 1.0}}),
    "sources": (
        "generate",
        {
            "generate": {
                "image_share": 0.0,
                "influence_steps": 1,
                "source_dropout": {
                    "text": 0.5,
                    "affect": 0.5,
                    "state": 0.3,
                    "h_ctx": 0.3,
                    "h_emo": 0.3,
                },
            }
        },
    ),
    "reinforce": ("reinforce", {}),
    **{
        loss: (
            "verify_grpo",
            {**BOTH_TASKS, "verify_grpo": {**GRPO, "loss_type": loss, **options}},
        )
        for loss, options in CLIPPING.items()
    },
    "gspo": (
        "verify_grpo",
        {
            **BOTH_TASKS,
            "verify_grpo": {
                **GRPO,
                **CLIPPED,
                "loss_type": "grpo",
                "importance_sampling_level": "sequence",
                "scale_rewards": "batch",
                "mask_truncated_completions": True,
            },
        },
    ),
    "updates": (
        "verify_grpo",
        {
            **BOTH_TASKS,
            "verify_grpo": {
                **GRPO,
                **CLIPPED,
                "batch_size": 16,
                "loss_type": "dapo",
                "num_iterations": 2,
                "steps_per_generation": 2,
            },
        },
    ),
    "gdpo": (
        "verify_grpo",
        {
            **BOTH_TASKS,
            "verify_grpo": {
                **GRPO,
                **CLIPPED,
                "multi_objective_aggregation": "normalize_then_sum",
            },
        },
    ),
}
NOISE = {"verify_posterior": 0.1}
"""Standard deviation by which the weights leave the reference before the step; else 0.01."""


def gradients(
    run: Path, wholes: dict[str, dict[str, Any]]
) -> dict[str, tuple[dict[str, Tensor], dict[str, float]]]:
    """Return each preset's gradient of its first update, and the metrics of the step."""
    found = {}
    for name, whole in wholes.items():
        with probes.toy_reward(), probes.trainer(run / name, whole) as made:
            gradient: dict[str, Tensor] = {}

            weights: set[float] = set()

            def posterior(*given, weights=weights) -> tuple[Tensor, Tensor]:
                reward, kl = class_posterior(*given)
                weights.add(kl_weight(kl.item()))
                return reward, kl

            def read(engine, gradient=gradient) -> bool:
                for part, parameter in engine.module.named_parameters():
                    if parameter.requires_grad and part not in gradient:  # of the first update
                        gradient[part] = safe_get_full_grad(parameter).clone()
                return False

            phase = made.schedule.phase_at(0)
            shorten_answers(made)
            leave_the_reference(made, NOISE.get(phase, 0.01))
            with (
                patch.object(engines, "overflowed", read),
                patch.object(verify_posterior, "class_posterior", posterior),
            ):
                found[name] = gradient, made._step(0, phase)
            found[name][1]["kl_weights"] = len(weights)
    return found


@torch.no_grad()
def leave_the_reference(made: Any, deviation: float) -> None:
    """Add noise to the weights: policy and reference then differ, as late in a run."""
    generator = torch.Generator().manual_seed(0)
    for part in made.engines:
        for weight in probes.trained(getattr(made.context.model, part)):
            weight += deviation * torch.randn(weight.shape, generator=generator)


def shorten_answers(made: Any) -> None:
    """Let answers be made of few tokens, one of which ends them, so that their lengths differ."""
    processor = made.context.model.processor
    kept = {processor.end_of_turn, *processor.tokenizer("a sad cat")["input_ids"]}
    vocabulary = len(made.context.model.understander.backbone.token_embeddings)
    processor.forbidden_ids = [i for i in range(vocabulary) if i not in kept]


@pytest.fixture(scope="module")
def partial_world(tmp_path_factory) -> Path:
    """Return a manifest of 24 training images, of which each lacks something else."""
    folder = tmp_path_factory.mktemp("partial")
    write_world(folder, 48, 5)
    samples = [s for s in open_dataset(folder) if s.split == "train"][:24]
    lacks = [("emotion",), ("knowledge",), ("valence",), ("knowledge", "arousal"), ()]
    kept = [
        dataclasses.replace(sample, **dict.fromkeys(lacks[i % 5] if i % 4 else ()))
        for i, sample in enumerate(samples)
    ]
    write_manifest(folder / "partial.jsonl", kept)
    return folder / "partial.jsonl"


@pytest.fixture(scope="module")
def found(tmp_path_factory, model, world, partial_world):
    """Return what each cut gave."""

    def wholes(micro_batches: int) -> dict[str, dict[str, Any]]:
        return {
            name: probes.settings(
                model,
                partial_world if phase in PARTIAL else world,
                stages=[{"steps": 1, "cycle": {phase: 1}}],
                engine={"gradient_accumulation_steps": micro_batches},
                **{**sections, phase: {"batch_size": 8, **sections.get(phase, {})}},
            )
            for name, (phase, sections) in CASES.items()
        }

    return {
        (size, micro_batches): in_ranks(
            gradients,
            tmp_path_factory.mktemp(f"cut-{size}-{micro_batches}"),
            wholes(micro_batches),
            size=size,
        )
        for size, micro_batches in [(1, 1), *CUTS]
    }


def test_every_phase_that_trains_is_cut():
    assert {phase for phase, _ in CASES.values()} == {n for n in PHASES if n != "remember"}


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_the_whole_step(found, name, cut):
    whole, _ = found[1, 1][0][name]
    norm = torch.stack([each.norm() for each in whole.values()]).norm()
    assert norm > 1e-4
    for rank in found[cut]:
        gradient, _ = rank[name]
        assert gradient.keys() == whole.keys()
        gaps = [(gradient[part] - value).norm() for part, value in whole.items()]
        assert torch.stack(gaps).norm() / norm < 1e-5


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_metrics_are_those_of_the_whole_step(found, name, cut):
    whole = {k: v for k, v in found[1, 1][0][name][1].items() if k != "kl_weights"}
    for rank in found[cut]:
        metrics = {k: v for k, v in rank[name][1].items() if k != "kl_weights"}
        assert metrics == pytest.approx(whole, rel=1e-4, abs=1e-5, nan_ok=True)


def test_the_micro_batches_alone_would_weigh_the_kl_differently(found):
    """Else nothing shows that the weight is that of the whole step's KL."""
    assert found[1, 1][0]["verify_posterior"][1]["kl_weights"] == 1
    assert found[1, 4][0]["verify_posterior"][1]["kl_weights"] == 2
