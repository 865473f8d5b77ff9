from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from emosym.diffusion.processes import RectifiedFlow, add_noise
from emosym.interfaces import TextFeatures
from emosym.models.generator import Condition, Generator

K = 5
PROMPTS = ["a red house in the snow", "", "two small boats"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def generator(tiny) -> Generator:
    return tiny.generator


@pytest.fixture(scope="module")
def condition(tiny, generator) -> Condition:
    width = tiny.understander.backbone.width
    with torch.no_grad():
        text = generator.denoiser.encode_text(PROMPTS)
    affect = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan], [-3.0, 0.0]])
    free = TextFeatures(0.1 * torch.ones_like(text.tokens), 0.2 * torch.ones_like(text.pooled))
    return Condition(text, free, normal(3, K, width), normal(3, width, seed=1), affect)


def row(condition: Condition, i: int) -> Condition:
    text = TextFeatures(condition.text.tokens[i : i + 1], condition.text.pooled[i : i + 1])
    rows = {k: getattr(condition, k)[i : i + 1] for k in ("h_ctx", "h_emo", "affect")}
    free = TextFeatures(
        condition.unconditional_text.tokens[i : i + 1],
        condition.unconditional_text.pooled[i : i + 1],
    )
    return Condition(text, free, **rows)


def batch() -> tuple[Tensor, Tensor]:
    return normal(3, 4, 16, 16, seed=2), torch.tensor([0.1, 0.5, 0.9])


def velocity(generator: Generator, latents, sigma, condition: Condition, keep: bool) -> Tensor:
    """Return the velocity, put together by hand from the parts."""
    flags = torch.full((len(latents), 3), keep)
    with torch.no_grad():
        emotion, pooled = generator.conditioner(
            condition.h_ctx, condition.h_emo, condition.affect, flags
        )
        text = condition.text if keep else condition.unconditional_text
        tokens, pooled = torch.cat([text.tokens, emotion], 1), text.pooled + pooled
        return generator.denoiser.predict(latents, sigma, tokens, pooled)


@torch.no_grad()
def test_the_output_by_hand(generator, condition):
    latents, sigma = batch()
    keep = torch.tensor([True, False, True])[:, None].expand(3, 4)
    found = generator(latents, sigma, condition, keep)
    for i in range(3):
        rows = slice(i, i + 1)
        expected = velocity(generator, latents[rows], sigma[rows], row(condition, i), i != 1)
        assert torch.allclose(found[rows], expected, atol=1e-5)


@torch.no_grad()
def test_an_image_does_not_depend_on_the_others(generator, condition):
    latents, sigma = batch()
    yes = torch.ones(3, 4, dtype=torch.bool)
    together = generator(latents, sigma, condition, yes)
    for i in range(3):
        rows = slice(i, i + 1)
        alone = generator(latents[rows], sigma[rows], row(condition, i), yes[rows])
        assert torch.allclose(alone, together[rows], atol=1e-5)


@torch.no_grad()
def test_the_output_depends_on_every_part_of_the_condition(generator, condition):
    latents, sigma = batch()
    yes = torch.ones(3, 4, dtype=torch.bool)
    output = generator(latents, sigma, condition, yes)
    text = condition.text
    others = {
        "tokens": replace(condition, text=replace(text, tokens=text.tokens.roll(1, 0))),
        "pooled": replace(condition, text=replace(text, pooled=text.pooled.roll(1, 0))),
        "h_ctx": replace(condition, h_ctx=-condition.h_ctx),
        "h_emo": replace(condition, h_emo=-condition.h_emo),
        "affect": replace(condition, affect=torch.tensor([[-1.0, -2.0]] * 3)),
    }
    for name, other in others.items():
        changed = generator(latents, sigma, other, yes)
        assert (changed - output).abs().amax((1, 2, 3)).min() > 1e-5, name


@torch.no_grad()
def test_a_dropped_condition_is_one_for_all(generator, condition):
    latents, sigma = batch()
    no = torch.zeros(3, 4, dtype=torch.bool)
    other = Condition(
        text=TextFeatures(-condition.text.tokens, 5 + condition.text.pooled),
        unconditional_text=condition.unconditional_text,
        h_ctx=-condition.h_ctx,
        h_emo=-condition.h_emo,
        affect=torch.zeros(3, 2),
    )
    free = generator(latents, sigma, condition, no)
    assert torch.equal(free, generator(latents, sigma, other, no))
    assert (free - generator(latents, sigma, condition, ~no)).abs().amax((1, 2, 3)).min() > 1e-4


@torch.no_grad()
def test_the_unconditional_branch_gets_the_empty_prompt(tiny, generator):
    """A model conditioned on nothing but [""] differs from its dropped branch by emotion alone."""
    width = tiny.understander.backbone.width
    output = SimpleNamespace(h_ctx=normal(2, K, width), h_emo=normal(2, width))
    built = tiny.condition(output, ["a red house", ""], torch.full((2, 2), torch.nan))
    empty = generator.denoiser.encode_text([""])
    assert torch.equal(built.unconditional_text.tokens, empty.tokens.expand(2, -1, -1))
    assert torch.equal(built.unconditional_text.pooled, empty.pooled.expand(2, -1))
    assert torch.allclose(built.text.tokens[1], empty.tokens[0], atol=1e-6)


def test_guidance_one_follows_the_condition_as_it_is(generator, condition):
    noise, one = normal(3, 4, 16, 16, seed=4), torch.ones(3)
    found = generator.sample(noise, condition, num_inference_steps=1, guidance_scale=1.0)
    assert torch.allclose(
        found, noise - velocity(generator, noise, one, condition, True), atol=1e-5
    )


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_guidance_by_hand(generator, condition, weight):
    """One step from σ = 1: x = ε - (free + w (wanted - free))."""
    noise, one = normal(3, 4, 16, 16, seed=4), torch.ones(3)
    wanted = velocity(generator, noise, one, condition, True)
    free = velocity(generator, noise, one, condition, False)
    found = generator.sample(noise, condition, num_inference_steps=1, guidance_scale=weight)
    assert torch.allclose(found, noise - (free + weight * (wanted - free)), atol=1e-4)
    assert (wanted - free).abs().max() > 1e-3


def test_guidance_with_a_scale_for_each_source_by_hand(generator, condition):
    """ε - (none + 2 (T - none) + 3 (T, A - T) + 0.5 (T, A, S - T, A)), from four branches."""
    noise, one = normal(3, 4, 16, 16, seed=4), torch.ones(3)
    rows = [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 1)]
    with torch.no_grad():
        none, text, affect, state = (
            generator(noise, one, condition, torch.tensor([row] * 3).bool()) for row in rows
        )
    expected = none + 2 * (text - none) + 3 * (affect - text) + 0.5 * (state - affect)
    scale = {"text": 2, "affect": 3, "state": 0.5}
    found = generator.sample(noise, condition, num_inference_steps=1, guidance_scale=scale)
    torch.testing.assert_close(found, noise - expected, atol=1e-4, rtol=1e-4)
    for one_branch, another in pairwise((none, text, affect, state)):
        assert (one_branch - another).abs().max() > 1e-4


def test_sampling_takes_shifted_euler_steps(tiny, generator, condition):
    noise = normal(3, 4, 16, 16, seed=5)
    for shift, levels in ((1.0, (1, 2 / 3, 1 / 3, 0)), (3.0, (1, 6 / 7, 3 / 5, 0))):
        made, x = copy.copy(generator), noise
        made.process = RectifiedFlow(shift)
        for here, there in pairwise(levels):
            x = x + (there - here) * velocity(made, x, torch.full((3,), here), condition, True)
        found = made.sample(noise, condition, num_inference_steps=3, guidance_scale=1.0)
        assert torch.allclose(found, x, atol=1e-4)


def test_equal_noise_gives_equal_images(generator, condition):
    noise = normal(3, 4, 16, 16, seed=6)
    first, again = (
        generator.sample(noise, condition, num_inference_steps=2, guidance_scale=2.0)
        for _ in range(2)
    )
    other = generator.sample(noise.flip(0), condition, num_inference_steps=2, guidance_scale=2.0)
    assert torch.equal(first, again)
    assert (first - other).abs().amax((1, 2, 3))[[0, 2]].min() > 0.1
    assert not first.requires_grad


def test_a_flow_is_learned(tiny):
    """Constant images under any noise: the error falls to less than 60 %."""
    made = copy.deepcopy(tiny.generator)
    width = tiny.understander.backbone.width
    latents = torch.ones(4, 4, 16, 16) * torch.linspace(-2, 2, 4)[:, None, None, None]
    with torch.no_grad():
        text = made.denoiser.encode_text(["a"] * 4)
    condition = Condition(text, text, normal(4, K, width), normal(4, width), torch.zeros(4, 2))
    rng = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(made.parameters(), 1e-3)
    losses = []
    for _ in range(20):
        noise, sigma = torch.randn(latents.shape, generator=rng), torch.rand(4, generator=rng)
        yes = torch.ones(4, 4, dtype=torch.bool)
        output = made(add_noise(made.process, latents, noise, sigma), sigma, condition, yes)
        loss = (output - (noise - latents)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5]), losses
