from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from emosym.flow import euler, logit_normal, noised, shifted


def images(seed: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 4, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_noised_goes_from_image_to_noise():
    clean, noise = images(0), images(1)
    assert torch.equal(noised(clean, noise, torch.zeros(3)), clean)
    assert torch.equal(noised(clean, noise, torch.ones(3)), noise)
    mixed = noised(clean, noise, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(mixed[0], clean[0])
    assert torch.allclose(mixed[1], 0.75 * clean[1] + 0.25 * noise[1])
    assert torch.equal(mixed[2], noise[2])


@pytest.mark.parametrize(
    ("sigma", "shift", "expected"),
    [(0.5, 3.0, 0.75), (0.25, 3.0, 0.5), (0.5, 1.0, 0.5), (0.0, 3.0, 0.0), (1.0, 3.0, 1.0)],
)
def test_shift_by_hand(sigma, shift, expected):
    assert shifted(torch.tensor(sigma), shift).item() == pytest.approx(expected)


def test_shifts_compose_and_undo_each_other():
    sigma = torch.linspace(0, 1, 11)
    assert torch.allclose(shifted(shifted(sigma, 3.0), 2.0), shifted(sigma, 6.0))
    assert torch.allclose(shifted(shifted(sigma, 3.0), 1 / 3), sigma, atol=1e-6)


def test_logit_normal_levels():
    levels = logit_normal(torch.tensor([0.0, math.log(3), -math.log(3)]))
    assert torch.allclose(levels, torch.tensor([0.5, 0.75, 0.25]))
    assert logit_normal(torch.tensor([0.0]), 3.0).item() == pytest.approx(0.75)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_euler_on_a_linear_field_has_a_closed_form(steps, shift):
    """dx = a x dσ: a step from σ to σ' multiplies by 1 + a (σ' - σ)."""
    rate, noise = 0.7, images(2)
    factor, seen = 1.0, []
    levels = [shift * s / (1 + (shift - 1) * s) for s in (1 - i / steps for i in range(steps + 1))]
    for here, there in pairwise(levels):
        factor *= 1 + rate * (there - here)

    def field(latents, sigma):
        seen.append(sigma)
        return rate * latents

    assert torch.allclose(euler(field, noise, steps, shift), factor * noise, atol=1e-6)
    assert [level.shape for level in seen] == [(3,)] * steps
    assert torch.allclose(torch.stack(seen)[:, 0], torch.tensor(levels[:-1]))


def test_many_euler_steps_reach_the_exact_solution():
    noise = images(3)
    found = euler(lambda x, _: 0.7 * x, noise, 2000)
    assert torch.allclose(found, math.exp(-0.7) * noise, atol=1e-3)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_true_velocity_leads_to_the_image_in_any_number_of_steps(shift):
    clean, noise = images(4), images(5)
    for steps in (1, 5):
        found = euler(lambda x, s: noise - clean, noise, steps, shift)
        assert torch.allclose(found, clean, atol=1e-5)
