"""Several updates a rollout: every option of the policy loss acts, as in a plain loop by TRL's
formulas; a run is resumed bit for bit between steps."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from einops import rearrange
from torch import Tensor

from emosym.errors import UserError
from emosym.randomness import Draws
from emosym.rl.rollout import Rollout, sample_answers
from tests.train import probes
from tests.train.distributed.test_cuts import shorten_answers
from tests.train.processes import in_ranks
from train.checkpoints import checkpoint
from train.phases.verify_grpo import VerifyGrpo
from train.schedule import learning_rate

LENGTH, GROUP, PROMPTS = 8, 4, 4
# Clipped gradients would have one norm, and AdamW hides a common factor: without clipping, losses
# that weigh updates differently end elsewhere.
RATE = {"learning_rate": 5e-3, "weight_decay": 0.1, "warmup_steps": 3, "max_grad_norm": 0.0}
OPTIONS: dict[str, Any] = {
    "batch_size": PROMPTS,
    "num_generations": GROUP,
    "max_completion_length": LENGTH,
    "num_iterations": 2,
    "steps_per_generation": 2,
    "temperature": 0.7,
    "loss_type": "grpo",
    "epsilon": 0.1,
    "epsilon_high": 0.15,
    "beta": 0.04,
    "reward_weights": {**probes.TOY, "length": 0.5},
}
GSPO = {"importance_sampling_level": "sequence"}
LOSSES: dict[str, dict[str, Any]] = {
    **{loss: {"loss_type": loss} for loss in ("grpo", "dr_grpo", "bnpo", "dapo")},
    "cispo": {"loss_type": "cispo", "epsilon": None, "epsilon_high": 1.02},
    "sapo": {"loss_type": "sapo", "epsilon": None, "epsilon_high": None},
    "gspo": GSPO,
}
ONE_UPDATE = {"num_iterations": 1, "steps_per_generation": 1}
CHANGES: dict[str, dict[str, Any]] = {
    **LOSSES,
    "epsilon": {"epsilon": 0.001},
    "epsilon_high": {"epsilon_high": 0.001},
    "beta": {"beta": 0.0},
    "num_iterations": {"num_iterations": 3},
    "steps_per_generation": {"steps_per_generation": 4},
    "one update": ONE_UPDATE,
    "one update, epsilon": {**ONE_UPDATE, "epsilon": 0.001, "epsilon_high": 0.001},
}


def preset(model: Path, world: Path, steps: int = 1, **options: Any) -> dict[str, Any]:
    return probes.settings(
        model,
        world,
        stages=[{"steps": steps, "cycle": {"verify_grpo": 1}}],
        engine={"understander": {**RATE, "ema_decay": 0.5}},
        verify_grpo={**OPTIONS, **options},
    )


def updated(run: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """Take one step; return the weights after it, its metrics, and those of a plain loop."""
    with probes.toy_reward(), probes.trainer(run, whole) as made:
        shorten_answers(made)
        twin = copy.deepcopy(made.context.model)
        before = probes.weights(made.context.model.understander)
        metrics = made._step(0, "verify_grpo")
        return {
            "before": before,
            "weights": probes.weights(made.context.model.understander),
            "metrics": metrics,
            "moves": made.averages["understander"].moves,
            "twin": plain_loop(made, twin),
        }


def plain_loop(made: Any, model: Any) -> dict[str, Tensor]:
    """Sample, score and update a model with plain PyTorch; return its weights."""
    phase, processor = made.phases["verify_grpo"], model.processor
    config, questions = phase.config, made._batch(0, "verify_grpo")
    uniform = Draws(made.config.seed, "verify_grpo", 0).uniform(PROMPTS, GROUP, LENGTH)
    rollout = Rollout(
        end_of_turn=processor.end_of_turn,
        forbidden_ids=processor.forbidden_ids,
        max_completion_length=LENGTH,
        num_generations=GROUP,
        uniform=rearrange(uniform, "b g l -> (b g) l"),
        temperature=config.temperature,
    )
    sample_answers(model.understander, made.context.question_prompts(questions), rollout)
    answers = rollout.answers
    texts = processor.decode(answers.ids, answers.mask)
    fills = (answers.mask.sum(1) / LENGTH).tolist()
    rewards = torch.tensor(
        [
            phase._score(text, fill, questions[i // GROUP])["total"]
            for i, (text, fill) in enumerate(zip(texts, fills, strict=True))
        ]
    ).view(PROMPTS, GROUP)
    spread = rewards.std(1, keepdim=True)
    advantages = ((rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-4)).flatten()

    allowed = torch.ones(len(model.understander.backbone.token_embeddings), dtype=torch.bool)
    allowed[list(processor.forbidden_ids)] = False

    def log_probs(rows: slice) -> Tensor:
        first = slice(rows.start * GROUP, rows.stop * GROUP)
        given = type(answers)(answers.ids[first], answers.mask[first])
        prompts = made.context.question_prompts(questions[rows])
        logits = model.understander(prompts, given).answer_logits / config.temperature
        logits = logits.masked_fill(~allowed, -math.inf)
        return logits.log_softmax(-1).gather(-1, given.ids[..., None]).squeeze(-1)

    size = PROMPTS // config.steps_per_generation
    pieces = [slice(first, first + size) for first in range(0, PROMPTS, size)]
    with torch.no_grad():
        old = [log_probs(rows) for rows in pieces]
    trained = probes.trained(model.understander)
    adam = torch.optim.AdamW(trained, weight_decay=RATE["weight_decay"])
    updates = len(pieces) * config.num_iterations
    for number in range(updates):
        piece = number % len(pieces)
        rows = slice(pieces[piece].start * GROUP, pieces[piece].stop * GROUP)
        loss = trl_loss(
            config,
            log_probs(pieces[piece]),
            old[piece],
            advantages[rows, None],
            answers.mask[rows].float(),
            answers.mask.sum() / len(pieces),
        )
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        loss.backward()
        optimizer = made.config.engine.understander
        for group in adam.param_groups:
            group["lr"] = learning_rate(optimizer, number, updates)
        adam.step()
    return probes.weights(model.understander)


def trl_loss(
    config: Any, new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, tokens: Tensor
) -> Tensor:
    """Return the loss of an update by the formulas of TRL 1.16 (GRPOTrainer._compute_loss).

    The reference is the starting policy, so its log-probabilities are the old ones.
    """
    ratio = (new - old).exp()
    if config.importance_sampling_level == "sequence":
        ratio = (((new - old) * mask).sum(1) / mask.sum(1)).exp()[:, None]
    if config.loss_type == "cispo":
        each = -ratio.clamp(max=config.epsilon_high).detach() * advantages * new
    elif config.loss_type == "sapo":
        tau = torch.where(advantages > 0, 1.0, 1.05)
        each = -4 / tau / (1 + (-tau * (ratio - 1)).exp()) * advantages
    else:
        bounded = ratio.clamp(1 - config.epsilon, 1 + config.epsilon_high)
        each = -torch.min(ratio * advantages, bounded * advantages)
    each = each + config.beta * ((old - new).exp() - (old - new) - 1)
    if config.loss_type in ("grpo", "sapo"):
        return ((each * mask).sum(1) / mask.sum(1)).mean()
    denominators = {
        "dr_grpo": len(mask) * LENGTH,
        "bnpo": mask.sum(),
        "dapo": tokens,
        "cispo": tokens,
    }
    return (each * mask).sum() / denominators[config.loss_type]


def interrupted(run: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """Train three steps at once, and with a new process's state after two; return both weights."""
    found = []
    for name, stops in (("straight", ()), ("stopped", (2,))):
        for until in (*stops, 3):
            with probes.toy_reward(), probes.trainer(run / name, whole) as made:
                shorten_answers(made)
                while made.state.step < until:
                    made.step()
                made.save()
                found.append(probes.weights(made.context.model.understander))
                average = made.averages["understander"]
    return {"straight": found[0], "resumed": found[2], "moves": average.moves}


def spoiled(run: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """Make the loss of the second step's fourth update NaN; return the error and what is kept."""
    calls, loss = itertools.count(), VerifyGrpo.loss

    def spoil(self: VerifyGrpo, batch: Any) -> Any:
        found = loss(self, batch)
        return found._replace(loss=found.loss * math.nan) if next(calls) == 7 else found

    told = ""
    with (
        patch.object(VerifyGrpo, "loss", spoil),
        probes.toy_reward(),
        probes.trainer(run, whole) as made,
    ):
        try:
            made.train()
        except UserError as error:
            told = str(error)
    kept = checkpoint.list_checkpoints(run / "checkpoints")
    return {"told": told, "kept": [path.name for path in kept]}


@pytest.fixture(scope="module")
def found(tmp_path_factory, model, world) -> dict[str, Any]:
    """Return what every case of this file gave, from one process."""
    folder = tmp_path_factory.mktemp("updates")
    calls = {
        name: (folder / name.replace(" ", "-"), preset(model, world, **change))
        for name, change in CHANGES.items()
    }
    three = preset(model, world, 3)
    return {
        **in_ranks(probes.many, updated, calls)[0],
        "interrupted": in_ranks(interrupted, folder / "interrupted", three)[0],
        "spoiled": in_ranks(spoiled, folder / "spoiled", {**three, "save_every": 1})[0],
    }


def gap(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference of two sets of weights."""
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("name", [*LOSSES, "epsilon", "beta", "num_iterations", "one update"])
def test_an_update_is_that_of_a_plain_loop(found, name):
    case = found[name]
    assert gap(case["weights"], case["before"]) > 1e-3
    assert gap(case["weights"], case["twin"]) < 2e-5


@pytest.mark.parametrize("pair", list(itertools.combinations(LOSSES, 2)), ids="-".join)
def test_every_loss_is_another(found, pair):
    one, other = (found[name]["weights"] for name in pair)
    assert gap(one, other) > 5e-5


@pytest.mark.parametrize(
    "name", ["epsilon", "epsilon_high", "beta", "num_iterations", "steps_per_generation"]
)
def test_every_option_acts(found, name):
    assert gap(found[name]["weights"], found["grpo"]["weights"]) > 1e-4


def test_with_one_update_nothing_is_clipped(found):
    one, clipped = found["one update"], found["one update, epsilon"]
    assert gap(one["weights"], clipped["weights"]) == 0
    assert one["metrics"]["ratio_deviation"] < 1e-4
    several = found["epsilon"]["metrics"]
    assert several["ratio_deviation"] > 0.01
    assert several["clipped_low"] + several["clipped_high"] > 0.01


def test_averages_and_learning_rates_count_updates(found):
    moves = {name: found[name]["moves"] for name in ("grpo", "num_iterations", "one update")}
    assert moves == {"grpo": 4, "num_iterations": 6, "one update": 1}


def test_a_run_is_resumed_bit_for_bit_between_rollouts(found):
    case = found["interrupted"]
    assert gap(case["straight"], case["resumed"]) == 0
    assert case["moves"] == 12


def test_a_step_that_fails_in_a_later_update_is_not_saved(found):
    """The weights are between two steps: what is kept is the checkpoint before them."""
    case = found["spoiled"]
    assert case["kept"] == ["step-0000001"]
    assert "step 2 (verify_grpo) was refused; got loss nan" in case["told"]
    assert "the last checkpoint is from before it" in case["told"]
