"""Token-by-token decoding in which all answers of a prompt share the prompt's KV cache.

The cache of transformers repeats the prompt's keys and values for every answer and reads each
copy for every token. Here the answers of a prompt attend to a single copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import DynamicCache

BLOCK = 32
"""Tokens that a new answer cache holds; a full one is replaced by one twice as large."""


class KeyValues(NamedTuple):
    """Keys or values of one layer."""

    prompts: Tensor
    """[P, heads, T, width]"""
    answers: Tensor
    """[P·G, heads, capacity, width], filled up to `SharedPrefixCache.length`."""


class SharedPrefixCache:
    """Keys and values of P prompts and of the G answers that continue each prompt.

    Without gradient. The prompts' tensors are those of the given cache, not copies.

    Args:
        cache: of the prompts, filled by one forward.
        mask: [P, T], 0 at padding.
        group: G.
    """

    def __init__(self, cache: DynamicCache, mask: Tensor, group: int) -> None:
        self.group = group
        self.length = 0
        """Tokens of each answer so far."""
        self.bias = torch.zeros(mask.shape, device=mask.device)
        """[P, T]: -inf at padding."""
        self.bias.masked_fill_(mask == 0, float("-inf"))
        layers = cast(Sequence[Any], cache.layers)  # full attention: each has keys and values
        self.keys = [self._with_answers(layer.keys.detach()) for layer in layers]
        self.values = [self._with_answers(layer.values.detach()) for layer in layers]

    def keep(self, rows: Tensor) -> None:
        """Keep only the answers with these indices; each gets its own row of its prompt."""
        owners = rows // self.group  # prompts may now have different numbers of answers
        self.bias = self.bias[owners]
        self.keys = [KeyValues(old.prompts[owners], old.answers[rows]) for old in self.keys]
        self.values = [KeyValues(old.prompts[owners], old.answers[rows]) for old in self.values]
        self.group = 1

    def reserve(self) -> None:
        """Make sure that one more token of each answer fits."""
        if self.length < self.keys[0].answers.shape[2]:
            return
        self.keys = [KeyValues(old.prompts, _doubled(old.answers)) for old in self.keys]
        self.values = [KeyValues(old.prompts, _doubled(old.answers)) for old in self.values]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Append a key and a value to each answer and return the attention output of its query.

        Args:
            layer: index of the layer.
            query: [P·G, heads · shared, width].
            key: [P·G, heads, width].
            value: [P·G, heads, width].
            scale: factor of the attention scores.

        Returns:
            [P·G, heads · shared · width]
        """
        keys, values, end = self.keys[layer], self.values[layer], self.length + 1
        keys.answers[:, :, self.length] = key
        values.answers[:, :, self.length] = value
        heads, group = key.shape[1], self.group
        query = rearrange(query * scale, "(p g) (h s) w -> p h (g s) w", g=group, h=heads)
        own = rearrange(query, "p h (g s) w -> (p g) h s w", g=group)
        prefix = query @ keys.prompts.transpose(2, 3) + rearrange(self.bias, "p t -> p 1 1 t")
        suffix = own @ keys.answers[:, :, :end].transpose(2, 3)
        suffix = rearrange(suffix, "(p g) h s t -> p h (g s) t", g=group)
        weights = torch.cat([prefix, suffix], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
        prefix, suffix = weights.split([prefix.shape[-1], end], -1)
        suffix = rearrange(suffix, "p h (g s) t -> (p g) h s t", g=group)
        from_prompt = rearrange(prefix @ values.prompts, "p h (g s) w -> (p g) (h s w)", g=group)
        from_answer = rearrange(suffix @ values.answers[:, :, :end], "n h s w -> n (h s w)")
        return from_prompt + from_answer

    def _with_answers(self, prompts: Tensor) -> KeyValues:
        count, heads, _, width = prompts.shape
        return KeyValues(prompts, prompts.new_empty(count * self.group, heads, BLOCK, width))


def read_one(
    language: Any, embedded: Tensor, positions: Tensor, branch: SharedPrefixCache
) -> Tensor:
    """Run one token of each answer through the language model.

    Equal to a forward of `language` up to rounding.

    Args:
        language: text model of the Qwen-VL family (the three families share no class).
        embedded: [N, D], token embeddings.
        positions: [3, N].
        branch: cache of N answers; one token is appended to each.

    Returns:
        Last hidden states [N, D].
    """
    cos, sin = language.rotary_emb(embedded[:, None], positions[..., None])  # each [N, 1, width]
    branch.reserve()
    states = embedded
    for index, layer in enumerate(language.layers):
        attention = layer.self_attn
        normed = _norm(states, layer.input_layernorm)
        query, key, value = (
            rearrange(project(normed), "n (h w) -> n h w", w=attention.head_dim)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):  # Qwen3
            query, key = _norm(query, attention.q_norm), _norm(key, attention.k_norm)
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        attended = branch.attend(index, query, key, value, attention.scaling)
        states = states + attention.o_proj(attended)
        states = states + layer.mlp(_norm(states, layer.post_attention_layernorm))
    branch.length += 1
    return _norm(states, language.norm)


def _norm(states: Tensor, norm: Any) -> Tensor:
    return F.rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embedding to [N, heads, width]. Ref: RoFormer, arXiv 2104.09864."""
    first, second = states.chunk(2, -1)
    return states * cos + torch.cat([-second, first], -1) * sin


def _doubled(answers: Tensor) -> Tensor:
    """Return [N, heads, capacity, width] with twice the capacity."""
    return torch.cat([answers, torch.empty_like(answers)], 2)
