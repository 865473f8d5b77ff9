"""Steps with and without noise: which may be drawn, and that those have a density."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emosym.diffusion.processes import FlowSpacing, Interval, RectifiedFlow, VPDiffusion, sample
from emosym.diffusion.transitions import LEAST_STD, TRANSITIONS, log_prob, noisy_steps

ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)
SHIFTS = [0.01, 0.1, 0.37, 0.5, 1.0, 1.15, 1.7, 3.0, 6.93, 12.0, 49.0, 100.0]
DIFFUSIONS = {
    f"{prediction}-{spacing}-{offset}-{clean}": VPDiffusion(
        ALPHAS,
        prediction,
        timestep_spacing=spacing,
        steps_offset=offset,
        set_alpha_to_one=clean,
    )
    for prediction in ("epsilon", "v_prediction")
    for spacing in ("leading", "trailing")
    for offset in (0, 1)
    for clean in (False, True)
}
SILENT = torch.cat([ALPHAS[:-1], torch.zeros(1)])
DIFFUSIONS["zero-snr"] = VPDiffusion(SILENT, "v_prediction", timestep_spacing="trailing")
DISCRETE = ("cps", "cps_guard", "ddpo")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_all_noisy_steps_have_a_density(process, name: str, steps: int) -> None:
    rule, schedule = TRANSITIONS[name], process.timesteps(steps)
    noisy = noisy_steps(process, steps, rule, rule.eta)
    assert noisy, "nothing to learn from"
    for index, (here, there) in enumerate(pairwise(schedule)):
        x, output = normal(2, 1, 2, 2, seed=index), normal(2, 1, 2, 2, seed=index + 99)
        interval = Interval(here, there, schedule[1])
        predicted = process.predict(x, output, here.expand(2))
        step = rule.transition(process, interval, x, predicted, rule.eta)
        assert (float(step.std) >= LEAST_STD) == (index in noisy)
        assert step.mean.isfinite().all()
        if index not in noisy:
            continue
        assert step.std.isfinite()
        drawn = step.mean + step.std * normal(2, 1, 2, 2, seed=index + 7)
        moved = step._replace(mean=step.mean + 0.1 * step.std)
        for value in (
            log_prob(drawn, step),
            rule.log_ratio(drawn, moved, step),
            rule.kl(moved, step, interval),
        ):
            assert value.isfinite().all()
        assert rule.log_ratio(drawn, step, step).abs().max() < 1e-5
        assert rule.kl(moved, step, interval).min() > 0


@pytest.mark.parametrize("spacing", get_args(FlowSpacing))
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", TRANSITIONS)
def test_every_step_of_a_flow_with_noise_has_a_density(name, shift, spacing):
    for steps in (1, 2, 4, 10, 28, 50):
        if steps > 2 or name not in DISCRETE:
            assert_all_noisy_steps_have_a_density(RectifiedFlow(shift, spacing), name, steps)


@pytest.mark.parametrize("kind", DIFFUSIONS)
@pytest.mark.parametrize("name", DISCRETE)
def test_every_step_of_a_diffusion_with_noise_has_a_density(name, kind):
    for steps in (2, 4, 10, 50):
        assert_all_noisy_steps_have_a_density(DIFFUSIONS[kind], name, steps)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_only_the_last_step_of_cps_and_ddim_adds_no_noise(name):
    rule = TRANSITIONS[name]
    expected = range(3) if name in DISCRETE else range(4)
    assert noisy_steps(RectifiedFlow(), 4, rule, rule.eta) == list(expected)
    assert noisy_steps(RectifiedFlow(), 4, rule, 0.0) == []


def test_where_a_diffusion_adds_no_noise():
    """DDIM: no step between equal levels, as the last one of SD1.5's spacing without an offset."""
    ddpo, cps = TRANSITIONS["ddpo"], TRANSITIONS["cps"]
    process = DIFFUSIONS["epsilon-leading-0-False"]
    assert noisy_steps(process, 5, ddpo, 1.0) == [0, 1, 2, 3]
    assert noisy_steps(process, 5, cps, 0.8) == [0, 1, 2, 3, 4]
    clean = DIFFUSIONS["epsilon-leading-1-True"]
    assert noisy_steps(clean, 5, ddpo, 1.0) == noisy_steps(clean, 5, cps, 0.8) == [0, 1, 2, 3]


def shifts() -> list[float]:
    """Return the two-digit numbers from 0.01 to 100, and what lies between them."""
    return [count / 100 for count in range(1, 10001, 7)] + [
        math.exp(e / 20) for e in range(-92, 93)
    ]


def test_pure_noise_is_exactly_one_for_any_shift():
    one = torch.ones(())
    apart = [shift for shift in shifts() if RectifiedFlow(shift).times(one) != 1]
    assert apart == []
    for shift in shifts()[::50]:
        for steps, spacing in itertools.product((1, 3, 10, 28), get_args(FlowSpacing)):
            schedule = RectifiedFlow(shift, spacing).timesteps(steps)
            assert (schedule[0], schedule[-1]) == (1, 0)
            assert (schedule.diff() < 0).all()


@given(
    st.floats(0.01, 100),
    st.one_of(st.floats(0, 1, width=32), st.floats(1 - 2**-20, 1, width=32)),
)
def test_a_level_lies_between_image_and_noise(shift, share):
    found = RectifiedFlow(shift).times(torch.tensor([share, 1.0]))
    assert 0 <= found[0] <= found[1] == 1


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_first_step_from_pure_noise_is_of_unit_size(shift):
    """Where σ was the float next to 1, the noise level of Flow-GRPO's SDE was in the thousands."""
    rule, process = TRANSITIONS["flow_grpo"], RectifiedFlow(shift)
    schedule = process.timesteps(10)
    x, v = normal(1, 4, 2, 2), normal(1, 4, 2, 2, seed=1)
    step = rule.transition(
        process,
        Interval(schedule[0], schedule[1], schedule[1]),
        x,
        process.predict(x, v, schedule[:1]),
        rule.eta,
    )
    # s² = η² / (1 - σ_1) and dt = σ_1 - 1: the noise is η at any shift.
    assert float(step.std) == pytest.approx(0.7, rel=1e-4)
    assert step.mean.abs().max() < 5
    assert sample(lambda *_: v, process, x, 10).abs().max() < 10
