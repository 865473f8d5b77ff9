from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler

from emosym.diffusion.processes import (
    RectifiedFlow,
    VPDiffusion,
    add_noise,
    min_snr,
    sample,
    training_times,
)
from emosym.errors import UserError

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
"""Stable Diffusion's schedule."""
ALPHAS = (1 - BETAS).cumprod(0)
PROCESSES = {
    "flow": RectifiedFlow(),
    "shifted": RectifiedFlow(3.0),
    "epsilon": VPDiffusion(ALPHAS, "epsilon"),
    "v": VPDiffusion(ALPHAS, "v_prediction", timestep_spacing="trailing", set_alpha_to_one=True),
}


def images(seed: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 4, 2, 2, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=PROCESSES)
def process(request):
    return PROCESSES[request.param]


def test_a_flow_goes_from_image_to_noise_by_hand():
    clean, noise = images(0), images(1)
    mixed = add_noise(RectifiedFlow(3.0), clean, noise, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(mixed[0], clean[0])
    assert torch.allclose(mixed[1], 0.75 * clean[1] + 0.25 * noise[1])
    assert torch.equal(mixed[2], noise[2])


def test_a_diffusion_by_hand():
    process = VPDiffusion(torch.tensor([0.64, 0.36]))
    mixed = add_noise(process, images(0), images(1), torch.tensor([0.0, 1.0, 0.0]))
    assert torch.allclose(mixed[0], 0.8 * images(0)[0] + 0.6 * images(1)[0])
    assert torch.allclose(mixed[1], 0.6 * images(0)[1] + 0.8 * images(1)[1])
    # What follows the last step: the first of the levels, or no noise at all.
    end = torch.tensor([-1.0])
    assert [float(part) for part in process.coefficients(end)] == pytest.approx([0.8, 0.6])
    clean_end = VPDiffusion(torch.tensor([0.64, 0.36]), set_alpha_to_one=True)
    assert [float(part) for part in clean_end.coefficients(end)] == [1.0, 0.0]


def test_a_perfect_output_predicts_image_and_noise(process):
    clean, noise, time = images(2), images(3), process.times(torch.tensor([0.1, 0.5, 0.9]))
    output = process.target(clean, noise, time)
    prediction = process.predict(add_noise(process, clean, noise, time), output, time)
    assert torch.allclose(prediction.clean, clean, atol=1e-4)
    assert torch.allclose(prediction.noise, noise, atol=1e-4)


def test_the_gain_is_how_an_error_of_the_output_shows_in_the_image(process):
    latents, output = images(4), images(5)
    time = process.times(torch.tensor([0.1, 0.5, 0.9]))
    moved = (
        process.predict(latents, output + 1, time).clean - process.predict(latents, output, time)[0]
    )
    assert torch.allclose(moved.abs()[:, 0, 0, 0], process.gain(time), rtol=1e-3)


@pytest.mark.parametrize(
    ("share", "shift", "expected"),
    [(0.5, 3.0, 0.75), (0.25, 3.0, 0.5), (0.5, 1.0, 0.5), (0.0, 3.0, 0.0), (1.0, 3.0, 1.0)],
)
def test_shift_by_hand(share, shift, expected):
    assert RectifiedFlow(shift).times(torch.tensor(share)).item() == pytest.approx(expected)


def test_training_times_by_hand():
    normal = torch.tensor([0.0, math.log(3), -math.log(3)])
    found = training_times(RectifiedFlow(), normal, "logit_normal")
    assert torch.allclose(found, torch.tensor([0.5, 0.75, 0.25]))
    assert training_times(RectifiedFlow(3.0), normal[:1], "logit_normal").item() == pytest.approx(
        0.75
    )
    quarter = torch.tensor([-0.67448975])  # the first quartile of a normal
    assert training_times(RectifiedFlow(), quarter, "uniform").item() == pytest.approx(0.25)
    times = training_times(PROCESSES["epsilon"], torch.randn(4000), "uniform")
    assert times.min() >= 0
    assert times.max() <= 999
    assert torch.equal(times, times.floor())
    assert times.mean().item() == pytest.approx(499.5, abs=20)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_the_published_weight(gamma, process):
    """min(SNR, γ) / SNR for ε, / (SNR + 1) for v; of a flow, min(SNR, γ) σ²."""
    time = process.times(torch.tensor([0.02, 0.3, 0.6, 0.95]))
    a, b = process.coefficients(time)
    snr = (a / b) ** 2
    least = snr.clamp(max=gamma)
    expected = {
        "flow": least * time**2,
        "epsilon": least / snr,
        "v_prediction": least / (snr + 1),
    }[getattr(process, "prediction_type", "flow")]
    assert torch.allclose(min_snr(process, time, gamma), expected, rtol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_on_a_linear_flow_the_sampler_has_a_closed_form(steps, shift):
    """dx = r x dσ: Euler's step from σ to σ' multiplies by 1 + r (σ' - σ)."""
    rate, noise = 0.7, images(2)
    factor, seen = 1.0, []
    levels = [shift * s / (1 + (shift - 1) * s) for s in (1 - i / steps for i in range(steps + 1))]
    for here, there in pairwise(levels):
        factor *= 1 + rate * (there - here)

    def field(latents, sigma):
        seen.append(sigma)
        return rate * latents

    found = sample(field, RectifiedFlow(shift), noise, steps)
    assert torch.allclose(found, factor * noise, atol=1e-5)
    assert [level.shape for level in seen] == [(3,)] * steps
    assert torch.allclose(torch.stack(seen)[:, 0], torch.tensor(levels[:-1]))


def test_many_steps_reach_the_exact_solution():
    noise = images(3)
    found = sample(lambda x, _: 0.7 * x, RectifiedFlow(), noise, 2000)
    assert torch.allclose(found, math.exp(-0.7) * noise, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_perfect_denoiser_leads_to_the_image_in_any_number_of_steps(process, steps):
    """From pure noise for a flow; a diffusion begins where a little of the image is left."""
    clean, noise = images(4), images(5)
    first = process.timesteps(steps)[:1].expand(3)
    start = add_noise(process, clean, noise, first)
    found = sample(lambda x, t: process.target(clean, noise, t), process, start, steps)
    a, b = process.coefficients(process.timesteps(steps)[-1])
    assert torch.allclose(found, a * clean + b * noise, atol=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("ends_clean", [False, True])
def test_diffusers_ddim_takes_the_same_steps(prediction, spacing, ends_clean):
    theirs = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        timestep_spacing=spacing,
        steps_offset=1 if spacing == "leading" else 0,
        set_alpha_to_one=ends_clean,
        clip_sample=False,
    )
    ours = VPDiffusion(
        theirs.alphas_cumprod,
        prediction,
        timestep_spacing=spacing,
        steps_offset=theirs.config.steps_offset,
        set_alpha_to_one=ends_clean,
    )
    theirs.set_timesteps(10)
    assert ours.timesteps(10)[:-1].tolist() == theirs.timesteps.tolist()

    def denoise(latents, time):
        return torch.sin(3 * latents) + time[:, None, None, None] / 1000

    expected = images(6)
    for time in theirs.timesteps:
        output = denoise(expected, time.expand(3))
        expected = theirs.step(output, time, expected, eta=0.0).prev_sample
    assert torch.allclose(sample(denoise, ours, images(6), 10), expected, rtol=1e-4, atol=1e-4)


def test_pure_noise_needs_v_prediction():
    silent = torch.tensor([0.9, 0.0])
    with pytest.raises(UserError, match="v-prediction"):
        VPDiffusion(silent)
    assert VPDiffusion(silent, "v_prediction").times(torch.tensor([0.99])).item() == 1


def test_more_steps_than_the_schedule_has_are_refused():
    with pytest.raises(UserError, match="more sampling steps"):
        PROCESSES["epsilon"].timesteps(1001)
