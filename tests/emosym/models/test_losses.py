from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from emosym.models.losses import (
    affect_loss,
    class_posterior,
    distil_loss,
    info_nce,
    kl_weight,
    label_loss,
    language_loss,
    layer_deviation,
    token_log_probs,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- InfoNCE


def slow_info_nce(states: Tensor, keys: Tensor, known: list[bool]) -> float:
    total = 0.0
    for i, state in enumerate(states):
        if not known[i]:
            continue
        scores = []
        for j, key in enumerate(keys):
            if known[j]:
                cosine = float(state @ key) / (float(state.norm()) * float(key.norm()))
                scores.append((j, (1 + cosine / 0.07) / 2))
        own = next(score for j, score in scores if j == i)
        total -= own - math.log(sum(math.exp(score) for _, score in scores))
    return total / len(states)


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_identical_pairs_cost_log_b(batch):
    states, keys = normal(1, 6).expand(batch, 6), normal(1, 6, seed=1).expand(batch, 6)
    loss = info_nce(states, keys, torch.ones(batch, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(batch), abs=1e-6)


def test_info_nce_by_hand():
    """Orthonormal pairs: the true pair scores (1 + 1/0.07) / 2, the other 1/2."""
    loss = info_nce(torch.eye(2), 5 * torch.eye(2), torch.tensor([True, True]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1 / 0.14)), abs=1e-6)


@pytest.mark.parametrize("known", [[True] * 5, [True, False, True, True, False]])
def test_info_nce_against_a_slow_twin(known):
    states, keys = normal(5, 8), normal(5, 8, seed=1)
    loss = info_nce(states, keys, torch.tensor(known))
    assert loss.item() == pytest.approx(slow_info_nce(states, keys, known), abs=1e-5)


def test_info_nce_of_half_precision_is_computed_in_float32():
    """The logits reach 7.6, where bfloat16 has steps of 1/32."""
    states, keys = normal(5, 8).bfloat16(), normal(5, 8, seed=1).bfloat16()
    known = torch.ones(5, dtype=torch.bool)
    whole = info_nce(states.float(), keys.float(), known)
    assert torch.equal(info_nce(states, keys, known), whole)


def test_an_image_without_knowledge_neither_pulls_nor_pushes():
    states, keys = normal(3, 4).requires_grad_(), normal(3, 4, seed=1).requires_grad_()
    info_nce(states, keys, torch.tensor([True, False, True])).backward()
    assert states.grad[1].eq(0).all()
    assert keys.grad[1].eq(0).all()
    assert states.grad[0].abs().sum() > 0
    assert keys.grad[0].abs().sum() > 0
    nobody = info_nce(states, keys, torch.zeros(3, dtype=torch.bool))
    assert nobody.item() == 0


# --- self-distillation


def slow_distil(states: Tensor, teachers: Tensor, known: list[bool]) -> float:
    total, (_, layers, width) = 0.0, states.shape
    for layer in range(layers):
        numbers = [float(x) for m in range(len(known)) if known[m] for x in teachers[m, layer]]
        mean = sum(numbers) / len(numbers)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in numbers) / len(numbers))
        for i in range(len(states)):
            if known[i]:
                pairs = zip(states[i, layer], teachers[i, layer], strict=True)
                gap = sum(abs(float(s) - float(t)) for s, t in pairs)
                total += gap / width / deviation / layers
    return total / len(states)


def distil(states: Tensor, teachers: Tensor, known: Tensor) -> Tensor:
    return distil_loss(states, teachers, known, layer_deviation(teachers, known))


def test_distil_by_hand():
    """Teachers 0 and 2 deviate by 1, 0 and 20 by 10: a layer's scale is not counted."""
    teachers = torch.tensor([[[0.0], [0.0]], [[2.0], [20.0]]])
    states = torch.tensor([[[1.0], [10.0]], [[2.0], [20.0]]])
    known = torch.tensor([True, True])
    assert layer_deviation(teachers, known).tolist() == [1, 10]
    assert distil(states, teachers, known).item() == pytest.approx(0.5)
    assert distil(teachers, teachers, known).item() == 0


@pytest.mark.parametrize("known", [[True] * 5, [True, False, True, True, False]])
def test_distil_against_a_slow_twin(known):
    states, teachers = normal(5, 3, 4), 2 * normal(5, 3, 4, seed=1) + 1
    loss = distil(states, teachers, torch.tensor(known))
    assert loss.item() == pytest.approx(slow_distil(states, teachers, known), abs=1e-5)


def test_micro_batches_together_distil_as_one():
    states, teachers = normal(6, 3, 4), normal(6, 3, 4, seed=1)
    known = torch.tensor([True, True, False, True, True, True])
    deviation = layer_deviation(teachers, known)
    halves = [
        distil_loss(states[rows], teachers[rows], known[rows], deviation)
        for rows in (slice(0, 3), slice(3, 6))
    ]
    assert (sum(halves) / 2).item() == pytest.approx(distil(states, teachers, known).item())


def test_distil_teaches_the_student_only_and_only_with_knowledge():
    states, teachers = normal(3, 2, 4).requires_grad_(), normal(3, 2, 4, seed=1).requires_grad_()
    known = torch.tensor([True, False, True])
    distil(states, teachers, known).backward()
    assert teachers.grad is None
    assert states.grad[1].eq(0).all()
    assert states.grad[[0, 2]].abs().min() > 0
    other = teachers.detach().clone()
    other[1] += 100  # what was read without words is no measure either
    same = distil(states, other, known)
    assert same.item() == pytest.approx(distil(states, teachers, known).item())
    nobody = distil(states, teachers, torch.zeros(3, dtype=torch.bool))
    assert nobody.item() == 0
    assert torch.autograd.grad(nobody, states)[0].eq(0).all()


# --- supervised losses


def test_label_loss_counts_the_unlabelled_as_zero():
    logits = torch.tensor([[0.0, math.log(3)], [5.0, 1.0], [0.0, 0.0]], requires_grad=True)
    loss = label_loss(logits, torch.tensor([1, -100, 0]))
    assert loss.item() == pytest.approx((-math.log(0.75) + math.log(2)) / 3)
    loss.backward()
    assert logits.grad[1].eq(0).all()
    assert label_loss(logits, torch.tensor([-100] * 3)).item() == 0


def test_label_loss_of_half_precision_is_computed_in_float32():
    logits, target = normal(5, 8).bfloat16(), torch.tensor([0, 3, 7, -100, 2])
    assert torch.equal(label_loss(logits, target), label_loss(logits.float(), target))


def test_affect_loss_by_hand():
    """Smooth L1 with β = 1/2: e² below it, |e| - 1/4 above it."""
    found = torch.tensor([[1.0, 0.25], [2.0, -3.0]], requires_grad=True)
    goal = torch.tensor([[0.0, 0.0], [math.nan, 0.0]])
    loss = affect_loss(found, goal)
    assert loss.item() == pytest.approx((0.75 + 0.0625 + 0 + 2.75) / 4)
    loss.backward()
    assert torch.allclose(found.grad, torch.tensor([[1.0, 0.5], [0.0, -1.0]]) / 4)
    unknown = affect_loss(found, torch.full((2, 2), math.nan))
    assert unknown.item() == 0
    assert torch.autograd.grad(unknown, found)[0].eq(0).all()


def test_language_loss_against_a_slow_twin():
    logits, ids = normal(3, 4, 7), torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [2, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    total = 0.0
    for b in range(3):
        length = int(mask[b].sum())
        for t in range(length):
            weights = [math.exp(x) for x in logits[b, t].tolist()]
            total -= math.log(weights[int(ids[b, t])] / sum(weights)) / length
    assert language_loss(logits, ids, mask).item() == pytest.approx(total / 3, abs=1e-6)


def test_padding_has_no_part_in_the_language_loss():
    logits, ids = normal(1, 3, 5), torch.tensor([[1, 2, 3]])
    mask = torch.tensor([[1, 1, 0]])
    other = torch.cat([logits[:, :2], 9 * logits[:, 2:]], 1)
    assert torch.equal(language_loss(logits, ids, mask), language_loss(other, ids * mask, mask))


def test_the_language_loss_of_half_precision_is_computed_in_float32():
    """Loss and gradient are those of the float32 copy, which is never kept for all answers."""
    half, ids = (5 * normal(4, 6, 300)).bfloat16().requires_grad_(), torch.arange(24).view(4, 6)
    mask = (torch.arange(6) < torch.tensor([[6], [2], [0], [4]])).long()
    whole = half.detach().float().requires_grad_()
    expected = language_loss(whole, ids, mask)
    expected.backward()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        loss = language_loss(half, ids, mask)
    assert torch.equal(loss, expected)
    assert all(each.dtype != torch.float32 or each.numel() < 300 for each in kept)
    loss.backward()
    assert torch.equal(half.grad, whole.grad.bfloat16())


# --- class posterior


def step_two(logits: Tensor, reference: Tensor, target: Tensor) -> float:
    reward, kl = class_posterior(logits, reference, target)
    return (label_loss(logits, target) - (reward - kl_weight(kl.item()) * kl)).item()


def test_a_perfect_classifier_at_its_reference_has_loss_minus_one():
    target = torch.tensor([0, 2])
    sure = 200.0 * F.one_hot(target, 3).float()
    reward, kl = class_posterior(sure, sure, target)
    assert [reward.item(), kl.item(), kl_weight(kl.item())] == [1.0, 0.0, 0.2]
    assert step_two(sure, sure, target) == pytest.approx(-1.0, abs=1e-6)


def test_class_posterior_against_a_slow_twin():
    logits, reference, target = normal(6, 8), normal(6, 8, seed=1), torch.arange(6)
    rewards, kls = [], []
    for b in range(6):
        p = [math.exp(x) for x in logits[b].tolist()]
        q = [math.exp(x) for x in reference[b].tolist()]
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        true = p[int(target[b])]
        rewards.append((0.3 * (max(p) == true) + 0.7 * true) * true)
        kls.append(sum(x * (math.log(x) - math.log(y)) for x, y in zip(p, q, strict=True)))
    reward, kl = class_posterior(logits, reference, target)
    assert reward.item() == pytest.approx(sum(rewards) / 6, abs=1e-6)
    assert kl.item() == pytest.approx(sum(kls) / 6, abs=1e-6)


def test_class_posterior_of_half_precision_is_computed_in_float32():
    logits, reference = normal(5, 8).bfloat16(), normal(5, 8, seed=1).bfloat16()
    target = torch.tensor([0, 3, 7, 1, 2])
    found = class_posterior(logits, reference, target)
    whole = class_posterior(logits.float(), reference.float(), target)
    assert all(torch.equal(*pair) for pair in zip(found, whole, strict=True))


def test_the_reward_is_differentiated_through_both_factors():
    """d/dz_y (0.3 c + 0.7 p) p = (0.3 c + 1.4 p) p (1 - p); the reference gets no gradient."""
    for right in (True, False):
        logits = torch.tensor([[1.0 if right else -1.0, 0.0]], requires_grad=True)
        reference = torch.zeros(1, 2, requires_grad=True)
        p = logits.softmax(-1)[0, 0].item()
        reward, kl = class_posterior(logits, reference, torch.tensor([0]))
        (gradient,) = torch.autograd.grad(reward, logits, retain_graph=True)
        assert gradient[0, 0].item() == pytest.approx((0.3 * right + 1.4 * p) * p * (1 - p))
        kl.backward()
        assert reference.grad is None
        assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kl", "weight"),
    [(0.0, 0.2), (0.0999, 0.2), (0.1, 0.1), (0.3, 0.1), (0.5, 0.1), (0.5001, 0.05), (9.0, 0.05)],
)
def test_kl_weight_thresholds(kl, weight):
    assert kl_weight(kl) == weight


def test_token_log_probs_picks_and_normalises():
    logits = torch.tensor([[[0.0, math.log(3)], [1.0, 1.0]]])
    found = token_log_probs(logits, torch.tensor([[1, 0]]))
    assert found[0].tolist() == pytest.approx([math.log(0.75), math.log(0.5)])
    barred = token_log_probs(torch.tensor([[[0.0, -math.inf, 0.0]]]), torch.tensor([[2]]))
    assert barred.item() == pytest.approx(math.log(0.5))
