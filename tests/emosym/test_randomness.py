from __future__ import annotations

import hashlib

import pytest
import torch

from emosym.randomness import Draws


def test_the_seed_is_the_hash_of_the_key():
    digest = hashlib.sha256(b"('image', 7)").digest()
    assert Draws("image", 7).generator.initial_seed() == int.from_bytes(digest[:8], "big") // 2
    assert Draws("image", 0).generator.initial_seed() == 6671765276642505848


def test_equal_keys_draw_equal_numbers_and_leave_torch_alone():
    before = torch.random.get_rng_state()
    first, second = Draws(1, "compress", 5), Draws(1, "compress", 5)
    assert torch.equal(first.normal(3, 2), second.normal(3, 2))
    assert torch.equal(first.uniform(4), second.uniform(4))
    assert torch.equal(first.permutation(9), second.permutation(9))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(Draws(1, "compress", 5).normal(6), Draws(1, "compress", 5).normal(6))
    torch.random.set_rng_state(before)


def test_other_keys_draw_other_numbers():
    keys = [(1, "a"), (1, "b"), (2, "a"), ("1", "a"), (1, "a", 0), (1,), ("a", 1)]
    rows = torch.stack([Draws(*key).uniform(8) for key in keys])
    assert len(rows.unique(dim=0)) == len(keys)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_permutation_holds_each_number_once(count):
    assert Draws("p").permutation(count).sort().values.tolist() == list(range(count))


def test_moments():
    normal, uniform = Draws("m").normal(100, 1000), Draws("m").uniform(100, 1000)
    assert normal.mean().item() == pytest.approx(0, abs=0.01)
    assert normal.std().item() == pytest.approx(1, abs=0.01)
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert 0 <= uniform.min() < uniform.max() < 1
