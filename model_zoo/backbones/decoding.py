"""One more token of each answer, read through a prompt that is held once for all its answers.

transformers would hold the prompt's keys and values once an answer, and read all of them anew for
every token. Here the answers of a prompt look at the same ones, and a step takes few operations.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import DynamicCache

ROOM = 32
"""Tokens that fit behind an answer's last one before its keys and values move to a larger place."""


class Held(NamedTuple):
    """Keys or values of a layer."""

    prompts: Tensor
    """[P, heads, T, width]"""
    answers: Tensor
    """[P·G, heads, room, width], filled up to the branch's length."""


class Branch:
    """Keys and values of P prompts, and of what goes on from each of them in G ways.

    Without gradient. The prompts' are those of the cache that it branches from, not copies.
    """

    def __init__(self, cache: DynamicCache, mask: Tensor, group: int) -> None:
        self.group = group
        self.length = 0
        """Tokens of each answer so far."""
        self.bias = torch.zeros(mask.shape, device=mask.device)
        """[P, T]: -inf at padding."""
        self.bias.masked_fill_(mask == 0, float("-inf"))
        self.keys = [self._held(layer.keys.detach()) for layer in cache.layers]
        self.values = [self._held(layer.values.detach()) for layer in cache.layers]

    def keep(self, rows: Tensor) -> None:
        """Go on with some answers only, by index."""
        owners = rows // self.group  # no longer as many of each prompt: each holds its own
        self.bias = self.bias[owners]
        self.keys = [Held(held.prompts[owners], held.answers[rows]) for held in self.keys]
        self.values = [Held(held.prompts[owners], held.answers[rows]) for held in self.values]
        self.group = 1

    def make_room(self) -> None:
        """Make sure that one more token fits."""
        if self.length < self.keys[0].answers.shape[2]:
            return
        self.keys = [Held(held.prompts, _longer(held.answers)) for held in self.keys]
        self.values = [Held(held.prompts, _longer(held.answers)) for held in self.values]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Append a key and a value to each answer and return what its query sees.

        Args:
            layer: of the language model.
            query: [P·G, heads · shared, width].
            key: [P·G, heads, width].
            value: [P·G, heads, width].
            scale: of the scores.

        Returns:
            [P·G, heads · shared · width]
        """
        keys, values, end = self.keys[layer], self.values[layer], self.length + 1
        keys.answers[:, :, self.length] = key
        values.answers[:, :, self.length] = value
        heads, group = key.shape[1], self.group
        query = rearrange(query * scale, "(p g) (h s) w -> p h (g s) w", g=group, h=heads)
        own = rearrange(query, "p h (g s) w -> (p g) h s w", g=group)
        far = query @ keys.prompts.transpose(2, 3) + rearrange(self.bias, "p t -> p 1 1 t")
        near = own @ keys.answers[:, :, :end].transpose(2, 3)
        near = rearrange(near, "(p g) h s t -> p h (g s) t", g=group)
        shares = torch.cat([far, near], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
        far, near = shares.split([far.shape[-1], end], -1)
        near = rearrange(near, "p h (g s) t -> (p g) h s t", g=group)
        seen = rearrange(far @ values.prompts, "p h (g s) w -> (p g) (h s w)", g=group)
        own = rearrange(near @ values.answers[:, :, :end], "n h s w -> n (h s w)")
        return seen + own

    def _held(self, prompts: Tensor) -> Held:
        count, heads, _, width = prompts.shape
        return Held(prompts, prompts.new_empty(count * self.group, heads, ROOM, width))


def read_one(language: nn.Module, embedded: Tensor, positions: Tensor, branch: Branch) -> Tensor:
    """Read one token of each answer [N, D] at positions [3, N]; return its last states [N, D].

    The numbers are those of `language` but for rounding. Ref: the Qwen-VL family's text models.
    """
    cos, sin = language.rotary_emb(embedded[:, None], positions[..., None])  # each [N, 1, width]
    branch.make_room()
    states = embedded
    for place, layer in enumerate(language.layers):
        attention = layer.self_attn
        normed = _norm(states, layer.input_layernorm)
        query, key, value = (
            rearrange(project(normed), "n (h w) -> n h w", w=attention.head_dim)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):  # Qwen3
            query, key = _norm(query, attention.q_norm), _norm(key, attention.k_norm)
        query, key = _turned(query, cos, sin), _turned(key, cos, sin)
        seen = branch.attend(place, query, key, value, attention.scaling)
        states = states + attention.o_proj(seen)
        states = states + layer.mlp(_norm(states, layer.post_attention_layernorm))
    branch.length += 1
    return _norm(states, language.norm)


def _norm(states: Tensor, norm: nn.Module) -> Tensor:
    return F.rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn [N, heads, width] by rotary positions. Ref: RoFormer (arXiv 2104.09864)."""
    first, second = states.chunk(2, -1)
    return states * cos + torch.cat([-second, first], -1) * sin


def _longer(held: Tensor) -> Tensor:
    """Return [N, heads, room, width] with twice the room."""
    return torch.cat([held, torch.empty_like(held)], 2)
