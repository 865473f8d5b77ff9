"""Exponential moving averages (EMA) of the trained weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from emosym.errors import UserError

MOVES = "moves"
"""Key of the number of counted optimizer steps in the file of an average."""
_FIX = "resume with the configuration the run was started with"


class WeightAverage:
    """The exponential moving average of a part's trainable parameters, adapters included.

    At optimizer step t = 0, 1, ... of the part, if `every` divides t + 1, it becomes
    `average + (1 - d_t) (weights - average)` with `d_t = min(decay, (1 + t) / (10 + t))`, so that a
    short run forgets its initial weights. It is float32 and on the device of the part. Every rank
    keeps one: parameters are whole on each rank (ZeRO 1 and 2), so all averages are equal bit for
    bit.
    Ref: Flow-GRPO, flow_grpo/ema.py (decay 0.9, every 8 steps, used in evaluation).
    """

    def __init__(self, part: nn.Module, decay: float, every: int) -> None:
        self.part = part
        self.decay = decay
        self.every = every
        self.moves = 0
        self.values: dict[str, Tensor] = {
            name: weight.detach().float().clone() for name, weight in self._weights()
        }

    def __str__(self) -> str:
        interval = "step" if self.every == 1 else f"{self.every} steps"
        return f"decay {self.decay:g}, every {interval}"

    @torch.no_grad()
    def update(self) -> None:
        """Count an optimizer step of the part; every `every` steps, update the average."""
        self.moves += 1
        if self.moves % self.every:
            return
        share = 1 - min(self.decay, self.moves / (self.moves + 9))
        for name, weight in self._weights():
            self.values[name].lerp_(weight.float(), share)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Replace the part's weights by the average; restore them afterwards, bit for bit."""
        with torch.no_grad():
            own = {name: weight.clone() for name, weight in self._weights()}
            self._set(self.values)
            try:
                yield
            finally:
                self._set(own)

    def save(self, path: Path) -> None:
        """Write the average to a file, and create its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(self.values | {MOVES: torch.tensor(self.moves)}, path)

    def load(self, path: Path) -> None:
        """Load a saved average.

        Raises:
            UserError: a file that cannot be read, or the average of other parameters.
        """
        try:
            saved = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"the average {path} cannot be read", got=error, fix=_FIX) from error
        moves = saved.pop(MOVES, torch.tensor(-1))
        own = {name: value.shape for name, value in self.values.items()}
        counted = moves.numel() == 1 and moves.item() >= 0
        if not counted or {name: value.shape for name, value in saved.items()} != own:
            raise UserError(
                f"{path} is not the average of this part",
                got=f"{len(saved)} tensors",
                expected=f"{len(own)} tensors, named and shaped as the parameters that train",
                fix=_FIX,
            )
        self.moves = int(moves)
        for name, value in self.values.items():
            value.copy_(saved[name])

    def _weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        named = self.part.named_parameters()
        return ((name, weight) for name, weight in named if weight.requires_grad)

    def _set(self, values: dict[str, Tensor]) -> None:
        for name, weight in self._weights():
            weight.copy_(values[name])
