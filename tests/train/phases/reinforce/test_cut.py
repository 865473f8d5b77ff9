"""A step's gradient does not depend on how the step is cut into ranks and micro-batches."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from emosym.models.model import EmoSym
from tests.train import probes
from tests.train.phases.reinforce.test_phase import preset
from tests.train.processes import in_ranks
from train.distributed import ranks
from train.micro_batches import split
from train.phases.registry import PHASES
from train.phases.reinforce.algorithms import ALGORITHMS

CUTS = [(1, 4), (2, 2), (4, 1), (1, 1)]
"""(ranks, micro-batches on each)"""


def gradients(run: Path, cases: dict[str, dict[str, Any]], micro_batches: int) -> dict[str, Any]:
    """Return the gradient of the first update of each preset, and its loss and metrics."""
    found = {}
    for name, whole in cases.items():
        with probes.trainer(run / name, whole) as made:
            model = copy.deepcopy(made.context.model)
            parts = {part: getattr(model, part) for part in EmoSym.PARTS}
            context = dataclasses.replace(made.context, model=model, parts=parts)
            phase = PHASES["reinforce"](context)
            key = (made.config.seed, "reinforce", 0)
            [batches] = split(made._batch(0, "reinforce"), 1, micro_batches, key)
            losses = []
            for batch, prepared in zip(batches, phase.prepare(batches), strict=True):
                batch.prepared = prepared
            for batch in batches:
                loss = phase.loss(batch).loss / micro_batches
                loss.backward()
                losses.append(loss.detach())
            whole_loss = ranks.mean(torch.stack(losses).sum()).item()
            named = model.generator.named_parameters()
            found[name] = {
                "loss": whole_loss,
                "gradient": torch.cat(
                    [ranks.mean(each.grad).flatten() for _, each in named if each.grad is not None]
                ),
            }
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory, model, world):
    folder = tmp_path_factory.mktemp("cuts")
    sizes = {"batch_size": 4, "num_images_per_prompt": 3}
    cases = {name: preset(model, world, algorithm=name, **sizes) for name in ALGORITHMS}
    both = {"reward_weights": {"affect": 0.5, "label": 0.5}, "own_target": 1.0}
    for scale in ("group", "batch", "none"):
        cases[f"apart-{scale}"] = preset(
            model,
            world,
            algorithm="cps",
            algorithm_options={
                "multi_objective_aggregation": "normalize_then_sum",
                "scale_rewards": scale,
            },
            **both,
            **sizes,
        )
    return {
        cut: in_ranks(gradients, folder / f"{cut[0]}x{cut[1]}", cases, cut[1], size=cut[0])[0]
        for cut in CUTS
    }


@pytest.mark.parametrize("cut", CUTS[1:])
@pytest.mark.parametrize("name", [*ALGORITHMS, "apart-group", "apart-batch", "apart-none"])
def test_the_gradient_is_that_of_the_whole_step(found, name, cut):
    """Judges see 8-bit images, so that rounding can move a score a little."""
    one, other = found[CUTS[0]][name], found[cut][name]
    size = one["gradient"].norm()
    assert size > 1e-6
    assert (one["gradient"] - other["gradient"]).norm() < 5e-3 * size
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-3, abs=1e-5)
