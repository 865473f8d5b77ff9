"""Text features of the decoder's prompts: a frozen encoder reads each of them once."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from emosym.interfaces import TextFeatures

KEPT = 4096
"""Prompts whose features are kept; the one that was asked for longest ago leaves first."""


class PromptFeatureCache:
    """Encodes prompts with a denoiser's text encoder.

    A frozen encoder reads a prompt alone, so that no batch can change its bits.
    """

    def __init__(self, denoiser: nn.Module, *, frozen: bool) -> None:
        self.denoiser = denoiser
        self.frozen = frozen
        self._kept: OrderedDict[str, TextFeatures] = OrderedDict()

    def __call__(self, prompts: list[str]) -> TextFeatures:
        """Return the features of B prompts; raises as `Denoiser.encode_text`."""
        if not self.frozen:
            return self.denoiser.encode_text(prompts)
        rows = [self._row(prompt) for prompt in prompts]
        return TextFeatures(
            torch.cat([row.tokens for row in rows]), torch.cat([row.pooled for row in rows])
        )

    def _row(self, prompt: str) -> TextFeatures:
        if prompt not in self._kept:
            with torch.no_grad():
                self._kept[prompt] = self.denoiser.encode_text([prompt])
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(prompt)
        return self._kept[prompt]
