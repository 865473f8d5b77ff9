"""The cache with room against the one of transformers, which copies all at every token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from model_zoo.cache import ROOM, RoomyLayer, roomy_cache
from tests.model_zoo import make


def states(batch: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, 3, length, 5, generator=rng).unbind()


@pytest.fixture
def caches() -> tuple[DynamicCache, DynamicCache]:
    """Return ours and theirs."""
    config = make.backbone("qwen2_5_vl")[0].model.config.text_config
    return roomy_cache(config), DynamicCache(config=config)


@torch.no_grad()
def test_whatever_happens_it_holds_what_the_plain_cache_holds(caches):
    """A prompt, copies of it, tokens beyond the room, fewer rows, more tokens."""

    def update(batch: int, length: int, seed: int) -> None:
        for layer in range(2):
            ours, theirs = (c.update(*states(batch, length, seed + layer), layer) for c in caches)
            assert all(torch.equal(own, true) for own, true in zip(ours, theirs, strict=True))
        assert len({int(cache.get_seq_length()) for cache in caches}) == 1
        assert caches[0].get_mask_sizes(1, 0) == caches[1].get_mask_sizes(1, 0)

    update(2, 7, 0)
    for cache in caches:
        cache.batch_repeat_interleave(3)
    for step in range(ROOM + 3):
        update(6, 1, 10 * step)
    for cache in caches:
        cache.batch_select_indices(torch.tensor([0, 4, 5]))
    update(3, 4, 1)
    update(3, 1, 2)


@torch.no_grad()
def test_a_token_moves_nothing_while_there_is_room():
    layer = RoomyLayer()
    layer.update(*states(2, 7, 0))
    places = {layer.update(*states(2, 1, step))[0].data_ptr() for step in range(ROOM + 1)}
    assert len(places) == 1
    places.add(layer.update(*states(2, 1, 99))[0].data_ptr())
    assert len(places) == 2


def test_gradients_pass_as_through_the_plain_cache(caches):
    found = []
    for cache in caches:
        parts = [torch.stack(states(2, length, length)).requires_grad_() for length in (7, 2, 1)]
        for part in parts:
            keys, values = cache.update(*part, 0)
        (keys.square().sum() + values.pow(3).sum()).backward()
        found.append([part.grad for part in parts])
    assert all(torch.equal(own, true) for own, true in zip(*found, strict=True))
    assert all(own.abs().min() > 0 for own in found[0])


def test_what_was_read_with_gradients_survives_tokens_read_without():
    layer, (prompt, token) = RoomyLayer(), (torch.stack(states(2, n, n)) for n in (7, 1))
    prompt.requires_grad_()
    keys, _ = layer.update(*prompt)
    loss = keys.square().sum()
    with torch.no_grad():
        layer.update(*token)
        layer.update(*token)
    loss.backward()
    assert torch.equal(prompt.grad[0], 2 * prompt[0])
