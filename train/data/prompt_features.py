"""Text features of the decoder's prompts; those of a frozen encoder are cached."""

from __future__ import annotations

from collections import OrderedDict

import torch

from emosym.interfaces import Denoiser, TextFeatures

CACHE_SIZE = 4096
"""Prompts whose features are kept; the least recently used is dropped first."""


class PromptFeatureCache:
    """Encodes prompts with a denoiser's text encoder.

    A frozen encoder reads each prompt alone, so that the rest of a batch cannot change its bits.
    """

    def __init__(self, denoiser: Denoiser, *, frozen: bool) -> None:
        self.denoiser = denoiser
        self.frozen = frozen
        self._cache: OrderedDict[str, TextFeatures] = OrderedDict()

    def __call__(self, prompts: list[str]) -> TextFeatures:
        """Return the features of B prompts; raises as `Denoiser.encode_text`."""
        if not self.frozen:
            return self.denoiser.encode_text(prompts)
        rows = [self._row(prompt) for prompt in prompts]
        return TextFeatures(
            torch.cat([row.tokens for row in rows]), torch.cat([row.pooled for row in rows])
        )

    def _row(self, prompt: str) -> TextFeatures:
        if prompt not in self._cache:
            with torch.no_grad():
                self._cache[prompt] = self.denoiser.encode_text([prompt])
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        self._cache.move_to_end(prompt)
        return self._cache[prompt]
