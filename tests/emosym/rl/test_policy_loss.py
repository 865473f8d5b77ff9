from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from emosym.errors import UserError
from emosym.rl.advantages import group_advantages
from emosym.rl.policy_loss import LOSSES, SAPO_TEMPERATURES, policy_loss

LENGTH = 8
"""Longest answer allowed."""
CASES = {name: (name, "token") for name in LOSSES} | {
    f"{name}, one ratio an answer": (name, "sequence") for name in LOSSES
}
"""Every loss at both levels of the ratio; grpo at the sequence level is GSPO."""
READS = {name: ("epsilon", "epsilon_high") for name in LOSSES} | {
    "cispo": ("epsilon_high",),
    "sapo": (),
}
"""Loss -> options of clipping that it reads."""
every_loss = pytest.mark.parametrize(("name", "level"), CASES.values(), ids=CASES)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss_of(name, new, old, reference, advantages, mask, *, level="token", **options):
    settings = {"beta": 0.0, "max_completion_length": LENGTH}
    return policy_loss(
        name,
        new,
        old,
        reference,
        advantages,
        mask,
        importance_sampling_level=level,
        **(settings | options),
    )


# --- Losses against loops


def surrogate(
    name: str, ratio: float, advantage: float, log_prob: float, low: float, high: float
) -> float:
    if name == "cispo":
        return min(ratio, high) * advantage * log_prob
    if name == "sapo":
        temperature = SAPO_TEMPERATURES[0 if advantage > 0 else 1]
        return 4 / temperature / (1 + math.exp(-temperature * (ratio - 1))) * advantage
    return min(ratio * advantage, min(max(ratio, low), high) * advantage)


def slow(name, level, new, old, reference, advantages, mask, low, high, beta) -> dict[str, float]:
    """The same, token by token."""
    answers, kls, below, above, deviation = [], [], 0, 0, 0.0
    for b in range(len(new)):
        real = [t for t in range(new.shape[1]) if mask[b, t]]
        gaps = [float(new[b, t] - old[b, t]) for t in real]
        advantage, values, divergences = float(advantages[b]), [], []
        for t, gap in zip(real, gaps, strict=True):
            ratio = math.exp(sum(gaps) / len(gaps) if level == "sequence" else gap)
            far = min(max(float(reference[b, t] - new[b, t]), -20), 20)
            divergences.append(math.exp(far) - far - 1)
            value = surrogate(name, ratio, advantage, float(new[b, t]), low, high)
            values.append(beta * divergences[-1] - value)
            below += ratio < low and advantage < 0
            above += ratio > high and advantage > 0
            deviation = max(deviation, abs(math.exp(gap) - 1))
        answers.append(values)
        kls.append(sum(divergences) / max(len(real), 1))
    count = sum(map(len, answers))
    total = sum(map(sum, answers))
    reduced = {
        "dr_grpo": total / (len(answers) * LENGTH),
        **dict.fromkeys(("bnpo", "dapo", "cispo"), total / count),
    }
    mean = sum(sum(values) / max(len(values), 1) for values in answers) / len(answers)
    return {
        "loss": reduced.get(name, mean),
        "kl": sum(kls) / len(kls),
        "clipped_low": below / count,
        "clipped_high": above / count,
        "ratio_deviation": deviation,
    }


@every_loss
@pytest.mark.parametrize(
    ("epsilon", "epsilon_high", "beta"), [(0.2, 0.28, 0.04), (0.05, 0.1, 0.0), (1, 10, 1.0)]
)
def test_every_loss_against_a_slow_twin(name, level, epsilon, epsilon_high, beta):
    new, old, reference = (normal(5, 6, seed=s) - 2 for s in range(3))
    advantages = normal(5, seed=3)
    mask = (torch.arange(6) < torch.tensor([[6], [3], [1], [0], [5]])).long()
    given = (new, old, reference, advantages, mask)
    options = {"epsilon": epsilon, "epsilon_high": epsilon_high}
    read = {option: options[option] for option in READS[name]}
    low, high = {"cispo": (0, epsilon_high), "sapo": (0, math.inf)}.get(
        name, (1 - epsilon, 1 + epsilon_high)
    )
    found = loss_of(name, *given, level=level, beta=beta, **read)
    for field, value in slow(name, level, *given, low, high, beta).items():
        assert getattr(found, field).item() == pytest.approx(value, rel=1e-5), field


@pytest.mark.parametrize("name", ["bnpo", "dapo", "cispo"])
@pytest.mark.parametrize("count", [2, 4])
def test_micro_batches_weigh_every_token_alike(name, count):
    """The engines take the mean over micro-batches: loss and gradient of all tokens together.

    With the tokens of its own micro-batch as denominator, the gradient of this case is wrong by
    more than half.
    """
    old, reference = (normal(4, 8, seed=s) - 2 for s in (1, 2))
    start = old + 0.1 * normal(4, 8)
    advantages = torch.tensor([1.0, -1.0, 2.0, -1.5])
    mask = (torch.arange(8) < torch.tensor([[8], [8], [1], [1]])).long()

    def halves(tokens: Tensor | None) -> tuple[float, Tensor]:
        new = start.clone().requires_grad_()
        losses = [
            loss_of(
                name,
                *(part[rows] for part in (new, old, reference, advantages, mask)),
                beta=0.04,
                update_tokens=tokens,
                rollout_tokens=tokens,
            ).loss
            for rows in torch.arange(4).chunk(count)
        ]
        mean = torch.stack(losses).mean()
        mean.backward()
        return mean.item(), new.grad

    new = start.clone().requires_grad_()
    whole = loss_of(name, new, old, reference, advantages, mask, beta=0.04).loss
    whole.backward()
    loss, gradient = halves(mask.sum() / count)
    assert loss == pytest.approx(whole.item(), rel=1e-5)
    assert (gradient - new.grad).norm() / new.grad.norm() < 1e-6
    _, own = halves(None)
    assert (own - new.grad).norm() / new.grad.norm() > 0.5


def test_dapo_weighs_tokens_by_the_rollout_and_bnpo_by_the_update():
    """Of a rollout of 12 tokens in two updates, this one has 4: 6 are its share."""
    mask, tokens = torch.ones(2, 2), {"update_tokens": torch.tensor(4.0)}
    tokens["rollout_tokens"] = torch.tensor(6.0)
    given = (torch.zeros(2, 2), torch.zeros(2, 2), None, torch.tensor([3.0, 3.0]), mask)
    assert loss_of("bnpo", *given, **tokens).loss.item() == pytest.approx(-3.0)
    assert loss_of("dapo", *given, **tokens).loss.item() == pytest.approx(-2.0)


# --- Losses by hand


def test_grpo_by_hand():
    """One token: ratio 1.5, so an advantage of 2 is clipped to 2.4 and a loss of 2 is not."""
    new, old = torch.tensor([[math.log(0.6)]]), torch.tensor([[math.log(0.4)]])
    one = torch.ones(1, 1)
    rise = loss_of("grpo", new, old, None, torch.tensor([2.0]), one, epsilon_high=0.2)
    fall = loss_of("grpo", new, old, None, torch.tensor([-2.0]), one, epsilon_high=0.2)
    assert rise.loss.item() == pytest.approx(-2.4)
    assert fall.loss.item() == pytest.approx(3.0)
    assert rise.ratio_deviation.item() == pytest.approx(0.5)
    assert (rise.clipped_high.item(), fall.clipped_high.item()) == (1, 0)
    higher = loss_of("grpo", new, old, None, torch.tensor([2.0]), one, epsilon_high=0.4)
    assert higher.loss.item() == pytest.approx(-2.8)  # clip-higher: up to 1.4
    apart = loss_of("grpo", new, new, old, torch.tensor([0.0]), one, beta=0.5)
    assert apart.kl.item() == pytest.approx(2 / 3 - math.log(2 / 3) - 1)
    assert apart.loss.item() == pytest.approx(0.5 * apart.kl.item())


def cispo(ratio: float, **options: float):
    """Return the gradient of one token of probability 1/e and advantage 2, and what is clipped."""
    new = torch.tensor([[-1.0]], requires_grad=True)
    old = new.detach() - math.log(ratio)
    found = loss_of("cispo", new, old, None, torch.tensor([2.0]), torch.ones(1, 1), **options)
    found.loss.backward()
    assert found.loss.item() == pytest.approx(new.grad.item() * new.item())
    return new.grad.item(), (found.clipped_low.item(), found.clipped_high.item())


def test_cispo_by_hand():
    """The weight of the gradient is the ratio up to epsilon_high itself, without a lower bound."""
    assert cispo(3.0) == (pytest.approx(-2 * 3.0), (0, 0))
    assert cispo(8.0) == (pytest.approx(-2 * 5.0), (0, 1))
    assert cispo(8.0, epsilon_high=6.5) == (pytest.approx(-2 * 6.5), (0, 1))
    assert cispo(8.0, epsilon_high=9.0) == (pytest.approx(-2 * 8.0), (0, 0))
    assert cispo(0.01, epsilon_high=2.0) == (pytest.approx(-2 * 0.01), (0, 0))


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("cispo", "sapo")])
def test_an_option_that_is_none_has_its_default(name):
    given = (normal(3, 4), normal(3, 4, seed=1), None, normal(3, seed=2), torch.ones(3, 4))
    spelled = loss_of(name, *given, epsilon=0.2, epsilon_high=0.28)
    assert loss_of(name, *given).loss.item() == spelled.loss.item()


@pytest.mark.parametrize(
    ("name", "option", "reads"),
    [
        ("cispo", "epsilon", "it reads epsilon_high"),
        ("sapo", "epsilon", "it reads no option of clipping"),
        ("sapo", "epsilon_high", "it reads no option of clipping"),
    ],
)
def test_an_option_that_the_loss_does_not_read(name, option, reads):
    one = torch.ones(1, 1)
    with pytest.raises(UserError) as caught:
        loss_of(name, one, one, None, torch.ones(1), one, **{option: 0.3})
    assert str(caught.value) == (
        f"loss_type={name} does not read {option}; got 0.3; expected null; {reads}"
    )


def test_sapo_by_hand():
    """At ratio 1 the gate is 2/τ with slope 1, as the ratio itself has."""
    new = torch.zeros(1, 1, requires_grad=True)
    found = loss_of("sapo", new, torch.zeros(1, 1), None, torch.tensor([3.0]), torch.ones(1, 1))
    assert found.loss.item() == pytest.approx(-6.0)
    found.loss.backward()
    assert new.grad.item() == pytest.approx(-3.0)


def test_at_the_sequence_level_an_answer_has_one_ratio():
    """GSPO. Ratios 4 and 1/4: their geometric mean is 1, so nothing is clipped."""
    new = torch.tensor([[math.log(4), -math.log(4)]])
    given = (new, torch.zeros(1, 2), None, torch.tensor([1.0]), torch.ones(1, 2))
    assert loss_of("grpo", *given, level="sequence").loss.item() == pytest.approx(-1.0)
    assert loss_of("grpo", *given).loss.item() == pytest.approx(-(1.28 + 0.25) / 2)


@pytest.mark.parametrize(
    ("name", "level"), [*((name, "token") for name in LOSSES), ("grpo", "sequence")]
)
def test_at_ratio_one_the_gradient_is_that_of_the_policy_gradient(name, level):
    new = (normal(4, 3) - 2).requires_grad_()
    advantages = normal(4, seed=1)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]])
    found = loss_of(name, new, new.detach(), new.detach(), advantages, mask, level=level, beta=0.04)
    assert [found.kl.item(), found.ratio_deviation.item()] == [0, 0]
    found.loss.backward()
    divisor = {
        "dr_grpo": torch.tensor(4.0 * LENGTH),
        **dict.fromkeys(("bnpo", "dapo", "cispo"), mask.sum()),
    }.get(name, 4 * mask.sum(1, keepdim=True))
    assert torch.allclose(new.grad, -advantages[:, None] * mask / divisor, atol=1e-7)


def test_the_gradient_stops_where_the_ratio_is_clipped():
    old = torch.zeros(4, 1)
    new = torch.tensor([[0.5], [0.5], [-0.5], [-0.5]], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss_of("grpo", new, old, old, advantage, torch.ones(4, 1)).loss.backward()
    moves = [0, math.exp(0.5), -math.exp(-0.5), 0]
    assert new.grad.squeeze(1).tolist() == pytest.approx([g / 4 for g in moves])


def test_k3_is_never_negative_and_survives_any_distance():
    new = torch.linspace(-100, 0, 41)[:, None].requires_grad_()
    reference = torch.full((41, 1), -50.0)
    none = torch.zeros(41)
    for b in range(41):
        rows = slice(b, b + 1)
        given = (new[rows], new[rows].detach(), reference[rows], none[rows], torch.ones(1, 1))
        found = loss_of("grpo", *given, beta=1.0)
        gap = min(max(-50 - new[b].item(), -20), 20)
        assert found.kl.item() >= 0
        assert found.kl.item() == pytest.approx(math.exp(gap) - gap - 1, rel=1e-5)
        (gradient,) = torch.autograd.grad(found.loss, new)
        assert gradient.isfinite().all()


# --- Learning


@every_loss
def test_every_loss_learns_a_bandit(name, level):
    """Four arms paying 0, 0.2, 0.4 and 1: after 60 steps of 8 pulls the best is pulled."""
    pays = torch.tensor([0.0, 0.2, 0.4, 1.0])
    logits = torch.zeros(4, requires_grad=True)
    start = logits.detach().log_softmax(-1)
    optimizer = torch.optim.Adam([logits], 0.1)
    rng = torch.Generator().manual_seed(0)
    for _ in range(60):
        arms = torch.multinomial(logits.detach().softmax(-1), 8, True, generator=rng)
        log_probs = logits.log_softmax(-1)[arms][:, None]
        advantage = group_advantages(pays[arms][None]).squeeze(0)
        given = (log_probs, log_probs.detach(), start[arms][:, None], advantage, torch.ones(8, 1))
        loss = loss_of(name, *given, level=level, beta=0.01)
        optimizer.zero_grad()
        loss.loss.backward()
        optimizer.step()
    assert logits.softmax(-1)[3] > 0.9
