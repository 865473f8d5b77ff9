from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler

from emosym.diffusion.processes import Interval, Prediction, RectifiedFlow, VPDiffusion
from emosym.diffusion.transitions import (
    TRANSITIONS,
    GaussianStep,
    cps,
    dance_sde,
    ddim,
    flow_sde,
    gaussian_kl,
    gaussian_ratio,
    guarded_ratio,
    log_prob,
    plain_ratio,
    sde_kl,
)
from emosym.errors import UserError


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def between(here: float, there: float, second: float = 0.9) -> Interval:
    return Interval(torch.tensor(here), torch.tensor(there), torch.tensor(second))


def prediction(process, latents: torch.Tensor, time: float, output: torch.Tensor) -> Prediction:
    return process.predict(latents, output, torch.full((len(latents),), time))


@pytest.mark.parametrize(
    ("transition", "eta", "s"),
    [(flow_sde, 0.7, 0.7 * math.sqrt(0.6 / 0.4)), (dance_sde, 0.3, 0.3)],
)
def test_the_sde_is_the_published_one(transition, eta, s):
    """mean = x (1 + s²/(2σ) dt) + v (1 + s² (1 - σ)/(2σ)) dt; std = s √-dt; number by number."""
    x, v, sigma, dt = normal(2, 1, 2, 2), normal(2, 1, 2, 2, seed=1), 0.6, -0.1
    step = transition(
        RectifiedFlow(), between(0.6, 0.5), x, prediction(RectifiedFlow(), x, 0.6, v), eta
    )
    assert float(step.std) == pytest.approx(s * math.sqrt(0.1), rel=1e-5)
    for found, here, speed in zip(step.mean.flatten(), x.flatten(), v.flatten(), strict=True):
        kept = here * (1 + s**2 / (2 * sigma) * dt)
        moved = speed * (1 + s**2 * (1 - sigma) / (2 * sigma)) * dt
        assert float(found) == pytest.approx(float(kept + moved), abs=1e-5)


def test_at_pure_noise_the_second_level_stands_in_for_the_first():
    x = normal(1, 1, 2, 2)
    step = flow_sde(
        RectifiedFlow(), between(1.0, 0.9), x, prediction(RectifiedFlow(), x, 1.0, x), 0.7
    )
    assert float(step.std) == pytest.approx(0.7 * math.sqrt(1 / 0.1) * math.sqrt(0.1), rel=1e-4)


def test_cps_keeps_the_level_of_noise_exactly():
    """S = σ' sin(η π/2); what is kept of the old noise and S make σ' together."""
    x, v = normal(1, 1, 2, 2), normal(1, 1, 2, 2, seed=1)
    predicted = prediction(RectifiedFlow(), x, 0.6, v)
    step = cps(RectifiedFlow(), between(0.6, 0.5), x, predicted, 0.8)
    s = 0.5 * math.sin(0.4 * math.pi)
    assert float(step.std) == pytest.approx(s)
    expected = 0.5 * (x - 0.6 * v) + math.sqrt(0.25 - s**2) * (x + 0.4 * v)
    assert torch.allclose(step.mean, expected, atol=1e-6)


def test_ddim_with_noise_is_diffusers():
    steps = 10
    theirs = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    theirs.set_timesteps(steps)
    ours = VPDiffusion(theirs.alphas_cumprod, set_alpha_to_one=True)
    schedule = ours.timesteps(steps)
    for place, (here, there) in enumerate(pairwise(schedule)):
        x, output = normal(2, 1, 2, 2, seed=place), normal(2, 1, 2, 2, seed=99)
        drawn = normal(2, 1, 2, 2, seed=7)
        expected = theirs.step(output, int(here), x, eta=1.0, variance_noise=drawn).prev_sample
        predicted = prediction(ours, x, float(here), output)
        step = ddim(ours, Interval(here, there, schedule[1]), x, predicted, 1.0)
        assert torch.allclose(step.mean + step.std * drawn, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_without_noise_a_step_is_the_deterministic_one(name):
    x, v = normal(2, 1, 2, 2), normal(2, 1, 2, 2, seed=1)
    step = TRANSITIONS[name].transition(
        RectifiedFlow(), between(0.6, 0.5), x, prediction(RectifiedFlow(), x, 0.6, v), 0.0
    )
    assert float(step.std) == 0
    assert torch.allclose(step.mean, x - 0.1 * v, atol=1e-6)


@pytest.mark.parametrize("transition", [flow_sde, dance_sde])
def test_a_noise_model_has_no_flow_sde(transition):
    process = VPDiffusion(torch.tensor([0.9, 0.5]))
    x = normal(1, 1, 2, 2)
    with pytest.raises(UserError, match="flow models"):
        transition(process, between(1.0, 0.0), x, prediction(process, x, 1.0, x), 0.5)


MEAN, SPREAD = 0.8, 0.5
"""Of the images of the toy: every number ~ N(0.8, 0.5²)."""


def toy(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return the exact velocity E[ε - x | x_σ] for Gaussian images."""
    level = sigma[:, None, None, None]
    total = (1 - level) ** 2 * SPREAD**2 + level**2
    away = x - (1 - level) * MEAN
    clean = MEAN + (1 - level) * SPREAD**2 / total * away
    noise = level / total * away
    return noise - clean


@pytest.mark.parametrize("name", ["flow_grpo", "dance_grpo", "ddpo"])
def test_the_sde_has_the_marginals_of_the_ode(name):
    """On Gaussian images, all steps drawn: mean and deviation of 40,000 numbers.

    CPS is no SDE: its noise is a share of the level at any number of steps.
    """
    found, steps = TRANSITIONS[name], 300
    schedule, rng = RectifiedFlow().timesteps(steps), torch.Generator().manual_seed(0)
    x = torch.randn(10_000, 1, 2, 2, generator=rng)
    half = None
    for here, there in pairwise(schedule):
        predicted = RectifiedFlow().predict(x, toy(x, here.expand(len(x))), here.expand(len(x)))
        step = found.transition(
            RectifiedFlow(),
            Interval(here, there, schedule[1]),
            x,
            predicted,
            0.7 * min(1, found.eta),
        )
        x = step.mean + step.std * torch.randn(x.shape, generator=rng)
        if half is None and there <= 0.5:
            half, level = x, float(there)
    expected = math.sqrt((1 - level) ** 2 * SPREAD**2 + level**2)
    assert half.std().item() == pytest.approx(expected, rel=0.03)
    assert half.mean().item() == pytest.approx((1 - level) * MEAN, abs=0.03)
    assert x.std().item() == pytest.approx(SPREAD, rel=0.04)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.03)


def pair() -> tuple[torch.Tensor, GaussianStep, GaussianStep]:
    std = torch.tensor(0.3)
    old = GaussianStep(normal(2, 1, 2, 2), std)
    sample = old.mean + std * normal(2, 1, 2, 2, seed=1)
    return sample, GaussianStep(old.mean + 0.1 * normal(2, 1, 2, 2, seed=2), std), old


def test_the_log_probability_is_a_mean_of_normal_densities():
    sample, new, _ = pair()
    density = torch.distributions.Normal(new.mean, 0.3).log_prob(sample)
    assert torch.allclose(log_prob(sample, new), density.mean((1, 2, 3)), atol=1e-5)
    at_the_mean = log_prob(
        torch.zeros(1, 1, 2, 2), GaussianStep(torch.zeros(1, 1, 2, 2), torch.ones(()))
    )
    assert at_the_mean.item() == pytest.approx(-0.918939, abs=1e-5)


def test_ratios_by_hand():
    """With z = (x' - mean_old) / S and Δ the move of the mean, number by number."""
    sample, new, old = pair()
    for row in range(2):
        z = ((sample - old.mean) / 0.3)[row].flatten().tolist()
        delta = (new.mean - old.mean)[row].flatten().tolist()
        both = list(zip(z, delta, strict=True))
        gaussian = sum(a * d / 0.3 - d * d / (2 * 0.09) for a, d in both) / 4
        guarded = sum(a * d for a, d in both) / 4
        plain = sum(2 * 0.3 * a * d - d * d for a, d in both) / 4
        assert gaussian_ratio(sample, new, old)[row].item() == pytest.approx(gaussian, abs=1e-5)
        assert guarded_ratio(sample, new, old)[row].item() == pytest.approx(guarded, abs=1e-5)
        assert plain_ratio(sample, new, old)[row].item() == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("ratio", [gaussian_ratio, guarded_ratio, plain_ratio])
def test_the_same_policy_has_ratio_one(ratio):
    sample, _, old = pair()
    assert ratio(sample, old, old).abs().max() == 0


def test_divergences_by_hand():
    """|Δ|² / (2 S²) and, for an SDE with S = s √-dt, |Δ|² / (2 s²): number by number."""
    _, new, old = pair()
    interval = between(0.6, 0.35)
    s = 0.3 / math.sqrt(0.25)
    for row in range(2):
        squares = [d**2 for d in (new.mean - old.mean)[row].flatten().tolist()]
        exact = sum(d / (2 * 0.3**2) for d in squares) / 4
        released = sum(d / (2 * s**2) for d in squares) / 4
        assert gaussian_kl(new, old, interval)[row].item() == pytest.approx(exact, rel=1e-5)
        assert sde_kl(new, old, interval)[row].item() == pytest.approx(released, rel=1e-5)
    kinds = {name: rule.kl for name, rule in TRANSITIONS.items()}
    sde = dict.fromkeys(("flow_grpo", "dance_grpo", "guard"), sde_kl)
    assert kinds == sde | dict.fromkeys(("cps", "cps_guard", "ddpo"), gaussian_kl)


def test_the_divergence_is_that_of_normal_distributions():
    _, new, old = pair()
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(new.mean, 0.3), torch.distributions.Normal(old.mean, 0.3)
    )
    found = gaussian_kl(new, old, between(0.6, 0.5))
    assert torch.allclose(found, theirs.mean((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize(("shift", "first"), [(1.0, 980), (3.0, 21513)])
def test_flow_grpos_divergence_of_a_distance_of_velocities(shift, first):
    """mean = ... + v (1 + s² (1 - σ) / (2σ)) dt: a distance Δv gives (Δv k)² / (2 s²).

    In the first of ten steps it is 980 times smaller than |Δv|² without a shift, and still 253
    times in the third: the β of one is not that of the other.
    """
    process, rule = RectifiedFlow(shift), TRANSITIONS["flow_grpo"]
    schedule = process.timesteps(10)
    ratios = []
    for here, there in pairwise(schedule):
        x, v, moved = (normal(1, 1, 2, 2, seed=seed) for seed in range(3))
        interval = Interval(here, there, schedule[1])
        steps = [
            rule.transition(process, interval, x, process.predict(x, each, here[None]), 0.7)
            for each in (v, moved)
        ]
        sigma = float(schedule[1] if here == 1 else here)
        square = 0.7**2 * float(here) / (1 - sigma)
        dt = float(there - here)
        k = (1 + square * (1 - float(here)) / (2 * float(here))) * dt
        distance = (v - moved).square().mean().item()
        expected = distance * k**2 / (2 * square)
        assert rule.kl(*steps, interval).item() == pytest.approx(expected, rel=1e-3)
        ratios.append(distance / expected)
    assert ratios[0] == pytest.approx(first, rel=1e-3)
    assert ratios == sorted(ratios, reverse=True)
    if shift == 1:
        assert [round(ratio) for ratio in ratios[:3]] == [980, 569, 253]
