"""A new conditioner is fitted to the states of the training set before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from emosym.models.whitening import Whitening
from tests.train import probes
from tests.train.processes import in_ranks
from train.phases import generate
from train.phases.generate import Generate

IMAGES, TOGETHER = 24, 5
SHARES = (0.0, 0.5, 1.0)


def preset(model: Path, world: Path, share: float) -> dict[str, Any]:
    return probes.settings(
        model,
        world,
        stages=[{"steps": 2, "cycle": {"generate": 1}}],
        generate={"batch_size": 4, "image_share": share, "influence_steps": 0},
    )


def fitted(run: Path, wholes: dict[float, dict[str, Any]]) -> dict[float, dict[str, Any]]:
    """Take two steps of each preset; return what was fitted, and its twin from single prompts."""
    generate.FITTED_IMAGES, generate.READ_TOGETHER = IMAGES, TOGETHER
    found = {}
    for share, whole in wholes.items():
        with probes.trainer(run / str(share), whole) as made:
            context, phase = made.context, made.phases["generate"]
            conditioner: Any = context.model.generator.conditioner
            assert isinstance(phase, Generate)
            states = [_read(phase, place, share) for place in range(IMAGES)]
            made.step()
            first = [conditioner.whiten_ctx.matrix.clone(), conditioner.whiten_emo.matrix.clone()]
            made.step()
            found[share] = {
                "h_ctx": torch.cat([one.h_ctx for one in states]),
                "h_emo": torch.cat([one.h_emo for one in states]),
                "mean": [conditioner.whiten_ctx.mean, conditioner.whiten_emo.mean],
                "first": first,
                "second": [conditioner.whiten_ctx.matrix, conditioner.whiten_emo.matrix],
                "new": conditioner.is_new,
            }
    return found


def _read(phase: Generate, place: int, share: float) -> Any:
    context = phase.context
    samples = context.training_set.take("samples", "fit", 0, IMAGES)[place : place + 1]
    if place - place % TOGETHER < round(share * IMAGES):
        prompts = context.image_prompts([context.training_set.image(samples[0].image)])
    else:
        given = torch.ones(1, dtype=torch.bool)
        prompts = phase._requests(samples, [samples[0].prompt or ""], given, given)
    context.model.eval()
    states = context.model.read(prompts)
    context.model.train()
    return states


@pytest.fixture(scope="module")
def found(tmp_path_factory, model, world):
    folder = tmp_path_factory.mktemp("fit")
    return in_ranks(fitted, folder, {share: preset(model, world, share) for share in SHARES})[0]


@pytest.mark.parametrize("share", SHARES)
def test_it_is_fitted_to_the_states_of_images_and_requests(found, share):
    for place, name in enumerate(("h_ctx", "h_emo")):
        states = found[share][name]
        assert torch.allclose(found[share]["mean"][place], states.flatten(0, -2).mean(0), atol=1e-5)
        twin = Whitening(states.shape[-1])
        twin.fit(states)
        assert not torch.equal(twin.matrix, torch.eye(len(twin.matrix)))
        scale = twin.matrix.abs().max().item()
        assert (found[share]["first"][place] - twin.matrix).abs().max().item() < 1e-2 * scale


@pytest.mark.parametrize("share", SHARES)
def test_a_trained_conditioner_is_not_fitted_again(found, share):
    assert not found[share]["new"]
    for first, second in zip(found[share]["first"], found[share]["second"], strict=True):
        assert torch.equal(first, second)


def test_images_and_requests_have_other_states(found):
    means = [found[share]["mean"][0] for share in SHARES]
    assert (means[0] - means[2]).norm() > 10 * 1e-5 * len(means[0])
