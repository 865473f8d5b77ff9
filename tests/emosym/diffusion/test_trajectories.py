from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from emosym.diffusion.nft import nft_loss, optimality
from emosym.diffusion.processes import Interval, RectifiedFlow, VPDiffusion, add_noise, sample
from emosym.diffusion.trajectories import (
    clipped_surrogate,
    divergences,
    log_ratios,
    sample_trajectory,
    transitions,
)
from emosym.diffusion.transitions import TRANSITIONS, TransitionRule
from emosym.rl.advantages import group_advantages

ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)
CASES = [(name, "flow") for name in TRANSITIONS] + [
    (name, "diffusion") for name in ("cps", "cps_guard", "ddpo")
]


def process_of(kind: str):
    return RectifiedFlow() if kind == "flow" else VPDiffusion(ALPHAS)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Painter(nn.Module):
    """A denoiser whose images lean to a learned colour."""

    def __init__(self) -> None:
        super().__init__()
        self.lean = nn.Parameter(torch.zeros(2))

    def forward(self, latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return 0.5 * latents + self.lean[:, None, None]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_exploring_is_the_loop_written_out(name, kind):
    process, rule, painter = process_of(kind), TRANSITIONS[name], Painter()
    noise, draws = normal(3, 2, 2, 2), normal(2, 3, 2, 2, 2, seed=1)
    found = sample_trajectory(
        painter,
        process,
        noise,
        num_inference_steps=5,
        stochastic_steps=range(1, 3),
        step_noise=draws,
        rule=rule,
        eta=0.5,
    )
    x, schedule, begun = noise, process.timesteps(5), []
    for place, (here, there) in enumerate(pairwise(schedule)):
        time = torch.full((3,), float(here))
        prediction = process.predict(x, painter(x, time).detach(), time)
        if place in (1, 2):
            begun.append(x)
            interval = Interval(here, there, schedule[1])
            step = rule.transition(process, interval, x, prediction, 0.5)
            x = step.mean + step.std * draws[place - 1]
        else:
            a, b = process.coefficients(there)
            x = a * prediction.clean + b * prediction.noise
    assert torch.allclose(found.final_latents, x, atol=1e-5)
    assert torch.allclose(found.latents, torch.stack(begun), atol=1e-5)
    assert [float(i.time) for i in found.intervals] == schedule[1:3].tolist()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_without_noise_it_is_the_sampler(name, kind):
    process, noise = process_of(kind), normal(3, 2, 2, 2)
    found = sample_trajectory(
        Painter(),
        process,
        noise,
        num_inference_steps=4,
        stochastic_steps=range(3),
        step_noise=normal(3, 3, 2, 2, 2, seed=1),
        rule=TRANSITIONS[name],
        eta=0.0,
    )
    with torch.no_grad():
        expected = sample(Painter(), process, noise, 4)
    assert torch.allclose(found.final_latents, expected, atol=1e-5)


def rollout(painter: Painter, name: str, process, seed: int, count: int = 48):
    noise, draws = normal(count, 2, 2, 2, seed=seed), normal(2, count, 2, 2, 2, seed=seed + 1)
    found = sample_trajectory(
        painter,
        process,
        noise,
        num_inference_steps=5,
        stochastic_steps=range(2),
        step_noise=draws,
        rule=TRANSITIONS[name],
        eta=TRANSITIONS[name].eta,
    )
    times = torch.stack([interval.time for interval in found.intervals])
    return found, times


def again(painter: Painter, found, times: torch.Tensor) -> torch.Tensor:
    return torch.stack(
        [painter(x, time.expand(len(x))) for x, time in zip(found.latents, times, strict=True)]
    )


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_first_update_has_ratio_one(name, kind):
    process, painter = process_of(kind), Painter()
    found, times = rollout(painter, name, process, 0)
    rule = TRANSITIONS[name]
    steps = transitions(found, again(painter, found, times), process, rule, rule.eta)
    logs = log_ratios(found, steps, rule)
    assert logs.shape == (2, 48)
    assert (logs.exp() - 1).abs().max() < 1e-5


@pytest.mark.parametrize("epsilon", [0.01, 10.0])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_loss_of_two_steps_by_hand(name, kind, epsilon):
    """Per step and sample: max(-ρ A, -clip(ρ) A), for GRPO-Guard over the length of the step."""
    process, painter, rule = process_of(kind), Painter(), TRANSITIONS[name]
    found, times = rollout(painter, name, process, 0, count=4)
    with torch.no_grad():
        painter.lean += torch.tensor([0.3, -0.2])
    steps = transitions(found, again(painter, found, times), process, rule, rule.eta)
    logs, advantages = log_ratios(found, steps, rule), torch.tensor([1.0, -0.5, 2.0, 0.0])
    assert logs.abs().min() > 1e-6
    total = 0.0
    for step, interval in enumerate(found.intervals):
        length = float(interval.time - interval.next_time) / (1 if kind == "flow" else 1000)
        weight = 1 / length if name in ("guard", "cps_guard") else 1.0
        for log, advantage in zip(logs[step].exp().tolist(), advantages.tolist(), strict=True):
            clipped = min(max(log, 1 - epsilon), 1 + epsilon)
            total += weight * max(-log * advantage, -clipped * advantage)
    loss = clipped_surrogate(found, logs, advantages, epsilon, process, rule)
    assert loss.item() == pytest.approx(total / 8, rel=1e-4)


@pytest.mark.parametrize("name", ["guard", "cps_guard"])
def test_reweighted_every_step_of_the_guard_pulls_alike(name):
    """A distance Δv moves the mean by Δv dt, and so the gradient, but for the division by dt."""
    process, rule, painter = RectifiedFlow(), TRANSITIONS[name], Painter()
    noise, draws = normal(64, 2, 4, 4), normal(4, 64, 2, 4, 4, seed=1)
    found = sample_trajectory(
        painter,
        process,
        noise,
        num_inference_steps=20,
        stochastic_steps=range(1, 5),
        step_noise=draws,
        rule=rule,
        eta=0.2,
    )
    lengths = [float(interval.time - interval.next_time) for interval in found.intervals]
    assert lengths == pytest.approx([0.05] * 4)
    moved = transitions(
        found,
        again(painter, found, torch.stack([i.time for i in found.intervals])) + 0.1,
        process,
        rule,
        0.2,
    )
    logs = log_ratios(found, moved, rule)
    one = clipped_surrogate(found, logs, draws[0].mean((1, 2, 3)), 10.0, process, rule)
    plain = TransitionRule(rule.transition, rule.eta, rule.log_ratio, rule.kl)
    other = clipped_surrogate(found, logs, draws[0].mean((1, 2, 3)), 10.0, process, plain)
    assert one.item() == pytest.approx(20 * other.item(), rel=1e-5)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_divergences_are_of_each_step(name, kind):
    process, painter, rule = process_of(kind), Painter(), TRANSITIONS[name]
    found, times = rollout(painter, name, process, 0, count=3)
    start = transitions(found, again(painter, found, times), process, rule, rule.eta)
    assert divergences(found, start, start, rule).abs().max() == 0
    moved = [step._replace(mean=step.mean + (1 + i)) for i, step in enumerate(start)]
    kl = divergences(found, moved, start, rule)
    assert kl.shape == (2, 3)
    for i, interval in enumerate(found.intervals):
        length = float(interval.time - interval.next_time)
        unit = length if name in ("flow_grpo", "dance_grpo", "guard") else 1.0
        expected = unit * (1 + i) ** 2 / (2 * float(start[i].std) ** 2)
        assert kl[i].tolist() == pytest.approx([expected] * 3, rel=1e-3)


def reward(images: torch.Tensor) -> torch.Tensor:
    """Red, not green."""
    red, green = images.mean((2, 3)).unbind(1)
    return -((red - 1) ** 2) - (green + 1) ** 2


def assert_learned(colours: list[torch.Tensor]) -> None:
    """The mean picture has gone most of the way from grey to red without green."""
    first, last = torch.stack(colours[:3]).mean(0), torch.stack(colours[-10:]).mean(0)
    assert first.abs().max() < 0.4
    assert last[0] > 0.6
    assert last[1] < -0.6


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_wanted_colour_is_learned_from_log_probabilities(name, kind):
    process, painter, rule = process_of(kind), Painter(), TRANSITIONS[name]
    optimizer = torch.optim.Adam(painter.parameters(), 0.05)
    colours = []
    for update in range(60):
        found, times = rollout(painter, name, process, 10 * update)
        gained = reward(found.final_latents)
        colours.append(found.final_latents.mean((0, 2, 3)))
        advantages = group_advantages(gained[None])[0]
        outputs = again(painter, found, times)
        logs = log_ratios(found, transitions(found, outputs, process, rule, rule.eta), rule)
        optimizer.zero_grad()
        (-(logs.exp() * advantages).mean()).backward()
        optimizer.step()
    assert_learned(colours)


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_a_wanted_colour_is_learned_on_the_forward_process(kind):
    process, painter = process_of(kind), Painter()
    optimizer = torch.optim.Adam(painter.parameters(), 0.05)
    colours = []
    for update in range(60):
        with torch.no_grad():
            images = sample(painter, process, normal(48, 2, 2, 2, seed=10 * update), 5)
        gained = reward(images)
        colours.append(images.mean((0, 2, 3)))
        r = optimality(group_advantages(gained[None])[0])
        time = process.times(torch.rand(48, generator=torch.Generator().manual_seed(update)))
        mixed = add_noise(process, images, normal(48, 2, 2, 2, seed=10 * update + 5), time)
        output = painter(mixed, time)
        loss = nft_loss(process, mixed, time, images, output, output.detach(), r, 1.0)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    assert_learned(colours)


@pytest.mark.parametrize("strength", [1.0, 0.1])
@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_the_nft_loss_by_hand(kind, strength):
    process = process_of(kind)
    time = process.times(torch.tensor([0.3, 0.7]))
    clean, mixed, output, old = (normal(2, 1, 2, 2, seed=seed) for seed in range(4))
    found = nft_loss(process, mixed, time, clean, output, old, torch.tensor([0.9, 0.2]), strength)
    for row, r in enumerate((0.9, 0.2)):
        total = 0.0
        for share, sign in ((r, 1), (1 - r, -1)):
            implied = (1 - sign * strength) * old[row] + sign * strength * output[row]
            at = time[row : row + 1]
            image = process.predict(mixed[row : row + 1], implied[None], at).clean[0]
            errors = (image - clean[row]).flatten().tolist()
            size = sum(map(abs, errors)) / 4
            total += share * sum(error**2 for error in errors) / 4 / size
        assert found[row].item() == pytest.approx(5 / strength * total, rel=1e-4)


def test_optimality_by_hand():
    found = optimality(torch.tensor([-9.0, -5.0, 0.0, 2.5, 5.0, 7.0]))
    assert found.tolist() == [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]


def test_an_average_image_moves_nothing():
    """At r = 1/2 and output = old, the two pulls cancel."""
    process, painter = RectifiedFlow(), Painter()
    time = torch.tensor([0.4, 0.8])
    mixed, clean = normal(2, 2, 2, 2), normal(2, 2, 2, 2, seed=1)
    output = painter(mixed, time)
    half = torch.full((2,), 0.5)
    nft_loss(process, mixed, time, clean, output, output.detach(), half, 1.0).mean().backward()
    assert painter.lean.grad.abs().max() < 1e-6
    best = copy.deepcopy(painter)
    output = best(mixed, time)
    nft_loss(process, mixed, time, clean, output, output.detach(), 2 * half, 1.0).mean().backward()
    assert best.lean.grad.abs().max() > 1e-2
