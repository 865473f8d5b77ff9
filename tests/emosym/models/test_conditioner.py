from __future__ import annotations

import pytest
import torch
from torch import Tensor

from emosym.models.conditioner import Conditioner, ConnectorConditioner, PseudoWordConditioner

B, K, D, E, P = 4, 3, 10, 6, 5
NAN = float("nan")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def word(pooled: int = P) -> PseudoWordConditioner:
    return PseudoWordConditioner(D, 8, E, pooled)


def connected(pooled: int = P) -> ConnectorConditioner:
    return ConnectorConditioner(D, 8, E, pooled, layers=2)


KINDS = {word: 1, connected: K + 1}
"""How many tokens each kind makes of the states."""


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def conditioner(kind) -> Conditioner:
    return moved(kind())


def moved(made: Conditioner) -> Conditioner:
    """Return a conditioner whose zeros are zero no longer."""
    torch.manual_seed(0)
    torch.nn.init.normal_(made.pooled.weight)
    torch.nn.init.normal_(made.absent)
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    affect = torch.tensor([[1.0, -2.0], [0.0, 0.0], [3.0, 3.0], [-3.0, 0.5]])
    return normal(B, K, D), normal(B, D, seed=1), affect, torch.ones(B, 3, dtype=torch.bool)


def test_a_new_conditioner_leaves_the_pooled_vector_alone(kind):
    tokens, pooled = kind()(*inputs())
    assert tokens.shape == (B, KINDS[kind] + 1, E)
    assert torch.equal(pooled, torch.zeros(B, P))


def test_one_step_makes_a_conditioner_new_no_longer(kind):
    """Also one in which no condition is dropped, and a decoder has no pooled input."""
    made = kind(pooled=0)
    assert made.is_new
    assert made.needs_fit is (kind is connected)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-6)
    tokens, _ = made(*inputs())
    tokens.square().mean().backward()
    assert made.is_new
    optimizer.step()
    assert not made.is_new


def test_a_decoder_without_pooled_input_gets_none(kind):
    made = kind(pooled=0)
    tokens, pooled = made(*inputs())
    assert tokens.shape == (B, KINDS[kind] + 1, E)
    assert pooled.shape == (B, 0)
    assert not any("pooled" in name for name in made.state_dict())


def test_the_word_by_hand():
    conditioner = moved(word())
    h_ctx, h_emo, affect, keep = inputs()
    tokens, pooled = conditioner(h_ctx, h_emo, affect, keep)
    mean = conditioner.norm_ctx(sum(h_ctx[:, k] for k in range(K)) / K)
    expected = conditioner.mapper(conditioner.norm_emo(h_emo)) + conditioner.mapper_ctx(mean)
    assert torch.allclose(tokens[:, 0], expected, atol=1e-6)
    both = torch.cat([tokens[:, 0], tokens[:, 1]], 1)
    assert torch.allclose(pooled, both @ conditioner.pooled.weight.T, atol=1e-5)


@torch.no_grad()
def test_the_connector_by_hand():
    """Attention of one head to all states, twice, then the projection to unit mean square."""
    conditioner = moved(connected())
    h_ctx, h_emo, affect, keep = inputs()
    tokens, pooled = conditioner(h_ctx, h_emo, affect, keep)
    x = torch.cat([conditioner.norm_ctx(h_ctx), conditioner.norm_emo(h_emo)[:, None]], 1)
    connector = conditioner.connector
    for layer in connector.layers:
        read = layer.self_attn
        q, k, v = (layer.norm1(x) @ read.in_proj_weight.T + read.in_proj_bias).chunk(3, -1)
        x = x + read.out_proj((q @ k.mT / D**0.5).softmax(-1) @ v)
        x = x + layer.linear2(torch.nn.functional.gelu(layer.linear1(layer.norm2(x))))
    first, _, second, _ = connector.project
    expected = second(torch.nn.functional.gelu(first(connector.norm(x))))
    expected = expected / expected.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(tokens[:, :-1], expected, atol=1e-4, rtol=1e-4)
    both = torch.cat([tokens[:, :-1].mean(1), tokens[:, -1]], 1)
    torch.testing.assert_close(pooled, both @ conditioner.pooled.weight.T, atol=1e-5, rtol=1e-5)


def test_layers_of_a_connector_start_apart():
    one, two = connected().connector.layers
    assert not torch.equal(one.linear1.weight, two.linear1.weight)


def test_without_reasoning_tokens_a_connector_makes_one_token():
    _, h_emo, affect, keep = inputs()
    tokens, _ = moved(connected())(normal(B, 0, D), h_emo, affect, keep)
    assert tokens.shape == (B, 2, E)
    assert tokens.isfinite().all()


def test_every_state_of_a_connector_reads_every_other():
    """Both ways; a state that changes moves each token, and turned states give turned tokens."""
    conditioner = moved(connected())
    h_ctx, h_emo, affect, keep = inputs()
    with torch.no_grad():
        tokens, _ = conditioner(h_ctx, h_emo, affect, keep)
        turned, _ = conditioner(h_ctx.flip(1), h_emo, affect, keep)
        assert torch.allclose(turned[:, :K], tokens[:, :K].flip(1), atol=1e-5)
        assert torch.allclose(turned[:, K:], tokens[:, K:], atol=1e-5)
        for k in (0, K - 1):
            other = h_ctx.clone()
            other[:, k] += normal(D, seed=3)
            changed, _ = conditioner(other, h_emo, affect, keep)
            assert (changed - tokens)[:, : K + 1].abs().amax(-1).min() > 1e-5


def test_without_reasoning_tokens_the_word_is_that_of_the_emotion():
    conditioner = moved(word())
    _, h_emo, affect, keep = inputs()
    tokens, pooled = conditioner(normal(B, 0, D), h_emo, affect, keep)
    expected = conditioner.mapper(conditioner.norm_emo(h_emo))
    assert torch.allclose(tokens[:, 0], expected, atol=1e-6)
    tokens.sum().backward()
    assert conditioner.mapper[0].weight.grad.abs().max() > 0
    assert conditioner.gate.grad is None
    assert pooled.isfinite().all()


def test_gradients_reach_every_parameter(conditioner):
    h_ctx, h_emo, affect, keep = inputs()
    h_ctx.requires_grad_()
    h_emo.requires_grad_()
    keep[3] = False
    tokens, pooled = conditioner(h_ctx, h_emo, affect, keep)
    (tokens.square().sum() + pooled.square().sum()).backward()
    silent = [n for n, p in conditioner.named_parameters() if not p.grad.abs().sum() > 0]
    assert silent == []
    for states in (h_ctx, h_emo):
        assert states.grad[:3].abs().sum((1, -1) if states.dim() == 3 else 1).min() > 0
        assert states.grad[3].eq(0).all()


def test_every_reasoning_token_counts_alike():
    conditioner = moved(word())
    h_ctx, h_emo, affect, keep = inputs()
    with torch.no_grad():
        tokens, _ = conditioner(h_ctx, h_emo, affect, keep)
        turned, _ = conditioner(h_ctx.flip(1), h_emo, affect, keep)
        other, _ = conditioner(h_ctx + normal(1, K, D, seed=2), h_emo, affect, keep)
    assert torch.allclose(tokens, turned, atol=1e-6)
    assert (tokens - other)[:, 0].abs().max() > 1e-4


@pytest.mark.parametrize("blank", [[NAN, NAN], [NAN, 1.0], [2.0, NAN]])
def test_affect_that_is_not_a_number_is_not_asked_for(conditioner, blank):
    h_ctx, h_emo, affect, keep = inputs()
    affect[1] = torch.tensor(blank)
    tokens, pooled = conditioner(h_ctx, h_emo, affect, keep)
    assert torch.equal(tokens[1, -1], conditioner.absent[1])
    assert tokens.isfinite().all()
    assert pooled.isfinite().all()
    (tokens.sum() + pooled.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in conditioner.parameters())


def test_zero_affect_is_asked_for_and_affects_differ(conditioner):
    h_ctx, h_emo, affect, keep = inputs()
    tokens, _ = conditioner(h_ctx, h_emo, affect, keep)
    assert (tokens[1, -1] - conditioner.absent[1]).abs().max() > 1e-3
    grid = torch.cartesian_prod(*[torch.linspace(-3, 3, 7)] * 2)
    same = (h_ctx[:1].expand(49, -1, -1), h_emo[:1].expand(49, -1))
    tokens, _ = conditioner(*same, grid, torch.ones(49, 3, dtype=torch.bool))
    assert torch.allclose(tokens[:, :-1], tokens[:1, :-1].expand(49, -1, -1), atol=1e-6)
    assert torch.pdist(tokens[:, -1]).min() > 1e-3


def test_a_dropped_condition_does_not_depend_on_its_inputs(conditioner):
    h_ctx, h_emo, affect, keep = inputs()
    keep[:2] = False
    tokens, pooled = conditioner(h_ctx, h_emo, affect, keep)
    others, pooled_of_others = conditioner(-5 * h_ctx, 2 + h_emo, affect.flip(0), keep)
    read, wanted = conditioner.absent
    assert torch.equal(tokens[:2, :-1], read.expand_as(tokens[:2, :-1]))
    assert torch.equal(tokens[:2, -1], wanted.expand(2, -1))
    assert torch.equal(tokens[:2], others[:2])
    assert torch.equal(pooled[:2], pooled_of_others[:2])
    assert (tokens[2:] - others[2:]).abs().amax((1, 2)).min() > 1e-3


def test_an_input_that_is_dropped_alone_does_not_act(conditioner):
    """One image drops the affect, one h_ctx, one h_emo, one nothing."""
    h_ctx, h_emo, affect, _ = inputs()
    keep = ~torch.eye(B, 3, dtype=torch.bool)
    with torch.no_grad():
        tokens, _ = conditioner(h_ctx, h_emo, affect, keep)
        everything, _ = conditioner(h_ctx, h_emo, affect, torch.ones_like(keep))
        exchanged = {
            "affect": conditioner(h_ctx, h_emo, affect.flip(0), keep)[0],
            "h_ctx": conditioner(h_ctx.flip(0), h_emo, affect, keep)[0],
            "h_emo": conditioner(h_ctx, h_emo.flip(0), affect, keep)[0],
        }
    torch.testing.assert_close(tokens[3], everything[3])
    for row, (dropped, _) in enumerate(exchanged.items()):
        assert (tokens[row] - everything[row]).abs().max() > 1e-3, dropped
        for name, others in exchanged.items():
            changed = (others[row] - tokens[row]).abs().max()
            assert (changed < 1e-6) if name == dropped else (changed > 1e-5), (dropped, name)
    read, wanted = conditioner.absent
    assert torch.equal(tokens[0, -1], wanted)
    assert not (tokens[1:3, :-1] == read).all(-1).any()


def test_the_word_without_one_of_its_parts_by_hand():
    conditioner = moved(word())
    h_ctx, h_emo, affect, keep = inputs()
    keep[0, 1] = keep[1, 2] = False
    tokens, _ = conditioner(h_ctx, h_emo, affect, keep)
    emotion = conditioner.mapper(conditioner.norm_emo(h_emo))
    context = conditioner.mapper_ctx(conditioner.norm_ctx(h_ctx.mean(1)))
    torch.testing.assert_close(tokens[0, 0], emotion[0])
    torch.testing.assert_close(tokens[1, 0], context[1])
    torch.testing.assert_close(tokens[2:, 0], (emotion + context)[2:])


def test_a_fitted_connector_hears_what_varies_little(kind):
    """Feature 0 of the states has a hundredth of the deviation of the others; see `Whitening`."""
    made = kind()
    small = torch.ones(D)
    small[0] = 0.01
    h_ctx, h_emo = normal(200, K, D) * small, normal(200, D, seed=1) * small
    affect = torch.full((200, 2), NAN)
    other = h_ctx.clone()
    other[..., 0] = other[..., 0].roll(1, 0)

    def change() -> float:
        keep = torch.ones(200, 3, dtype=torch.bool)
        with torch.no_grad():
            own = made(h_ctx, h_emo, affect, keep)[0]
            return (made(other, h_emo, affect, keep)[0] - own).square().mean().sqrt().item()

    before = change()
    made.fit(h_ctx, h_emo)
    assert change() / before > (20 if kind is connected else 1 - 1e-6)
    assert made.is_new
