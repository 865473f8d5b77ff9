"""Features of the knowledge texts, which the reasoning tokens are pulled towards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from emosym.models.model import DECODER, EmoSym
from model_zoo.text.text_encoders import load_text_encoder


class KnowledgeEncoder:
    """Encodes knowledge texts with the encoder of a name; see `ModelConfig.knowledge_encoder`.

    The decoder's own encoder is read anew each time, because `generate` may train it. All others
    are frozen: a text is encoded once. It is encoded alone, so that its batch mates cannot change
    the last bits, and a resumed run finds the same ones.
    """

    def __init__(self, name: str, model: EmoSym, device: torch.device) -> None:
        self.name = name
        self.model = model
        self.device = device
        self.encoder = None if name == DECODER else load_text_encoder(name).to(device)
        self._known: dict[str, Tensor] = {}

    @property
    def width(self) -> int | None:
        """P; None is the decoder's."""
        return None if self.encoder is None else self.encoder.width

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return features [B, P] on the model's device, in its type."""
        if self.encoder is None:
            return self.model.generator.denoiser.pool_text(texts)
        for text in texts:
            if text not in self._known:
                self._known[text] = self.encoder([text])[0].cpu()
        features = torch.stack([self._known[text] for text in texts])
        return features.to(self.model.understander.reasoner.emotion)
