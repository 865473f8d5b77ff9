"""A new conditioner is fitted to the states of the training set before its first step."""

from __future__ import annotations

import pytest
import torch

from emosym.models.whitening import Whitening
from tests.train import probes
from train.data.dataset import TrainingSet
from train.phases import generate
from train.phases.generate import Generate

IMAGES = 24


def whole(model, world, share: float) -> dict:
    return probes.settings(
        model,
        world,
        stages=[{"steps": 2, "cycle": {"generate": 1}}],
        generate={"batch_size": 4, "image_share": share, "influence_steps": 0},
    )


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(generate, "FITTED_IMAGES", IMAGES)
    monkeypatch.setattr(generate, "READ_TOGETHER", 5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_it_is_fitted_once_to_images_and_requests(tmp_path, model, world, monkeypatch, share):
    """The states are those of a share of images, and of requests; a second step fits nothing."""
    fitted: list[torch.Tensor] = []
    own = Whitening.fit
    monkeypatch.setattr(
        Whitening, "fit", lambda self, states: (fitted.append(states.clone()), own(self, states))
    )
    with probes.trainer(tmp_path / "run", whole(model, world, share)) as made:
        context = made.context
        phase = made.phases["generate"]
        assert isinstance(phase, Generate)
        training_set: TrainingSet = context.training_set
        samples = training_set.take("samples", "fit", 0, IMAGES)
        context.model.eval()
        twin = []
        for place, sample in enumerate(samples):
            if place - place % 5 < round(share * IMAGES):
                prompts = context.image_prompts([training_set.image(sample.image)])
            else:
                given = torch.ones(1, dtype=torch.bool)
                prompts = phase._requests([sample], [sample.prompt], given, given)
            twin.append(context.model.read(prompts))
        context.model.train()
        made.step()
        made.step()
        conditioner = context.model.generator.conditioner
        h_ctx = torch.cat([states.h_ctx for states in twin])
        h_emo = torch.cat([states.h_emo for states in twin])
        assert len(fitted) == 2
        for found, expected in zip(fitted, (h_ctx, h_emo), strict=True):
            assert torch.allclose(found, expected, atol=1e-5)
        for white, states in ((conditioner.whiten_ctx, h_ctx), (conditioner.whiten_emo, h_emo)):
            assert torch.allclose(white.mean, states.flatten(0, -2).mean(0), atol=1e-5)
            twin_white = Whitening(states.shape[-1])
            own(twin_white, states)
            assert torch.allclose(white.matrix, twin_white.matrix, rtol=0.02, atol=0.02)


def test_a_trained_conditioner_keeps_what_it_was_fitted_to(tmp_path, model, world, monkeypatch):
    with probes.trainer(tmp_path / "run", whole(model, world, 1.0)) as made:
        made.step()
        conditioner = made.context.model.generator.conditioner
        before = conditioner.whiten_ctx.matrix.clone()
        assert not conditioner.is_new
        assert not torch.equal(before, torch.eye(len(before)))
        made.step()
        assert torch.equal(conditioner.whiten_ctx.matrix, before)
