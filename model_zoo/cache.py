"""A key-value cache to which a token is added without copying all before it."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Tokens that fit behind the last one before keys and values are copied to a larger place."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, with room behind them for what is sampled.

    With gradients it concatenates, as its base does: a backward pass needs what it has read.
    """

    def __init__(self) -> None:
        super().__init__()
        self._leave_rooms()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append [B, heads, new, width] and return all keys and all values."""
        if torch.is_grad_enabled() or not self.get_seq_length():
            self._leave_rooms()
            return super().update(key_states, value_states, *args, **kwargs)
        self.keys, self._key_room = _append(self.keys, self._key_room, key_states)
        self.values, self._value_room = _append(self.values, self._value_room, value_states)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row, copies side by side."""
        super().batch_repeat_interleave(repeats)
        self._leave_rooms()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        super().batch_select_indices(indices)
        self._leave_rooms()

    def _leave_rooms(self) -> None:
        self._key_room: Tensor | None = None
        self._value_room: Tensor | None = None


def roomy_cache(config: PreTrainedConfig) -> DynamicCache:
    """Return an empty cache for a language model; layers with a sliding window stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [
        RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def _append(past: Tensor, room: Tensor | None, new: Tensor) -> tuple[Tensor, Tensor]:
    """Return `past` with `new` behind it, and the room where both are; `past` may be in `room`."""
    start = past.shape[2]
    stop = start + new.shape[2]
    if room is None or stop > room.shape[2]:
        room = new.new_empty(*past.shape[:2], stop + ROOM, past.shape[3])
        room[:, :, :start] = past
    room[:, :, start:stop] = new
    return room[:, :, :stop], room
