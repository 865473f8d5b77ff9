"""Features of the knowledge texts, the positives of compress's contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from emosym.models.model import DECODER, EmoSym
from model_zoo.text.text_encoders import SENTENCE, load_text_encoder


@dataclass(kw_only=True, slots=True)
class KnowledgeConfig:
    """Options of a phase that needs `knowledge`."""

    knowledge_encoder: str | None = None
    """Encodes the knowledge texts: `decoder` (the decoder's text encoder), `sentence`
    (all-MiniLM-L6-v2 of the extra `text`), or the folder or hub id of a CLIP text tower. Null keeps
    the encoder that the model's knowledge head was trained for. Another encoder needs a new head,
    which the run adds with random weights."""

    def resolve_paths(self) -> None:
        """Make the folder of an encoder absolute."""
        name = self.knowledge_encoder
        if name not in (None, DECODER, SENTENCE) and Path(name).expanduser().is_dir():
            self.knowledge_encoder = str(Path(name).expanduser().resolve())


class KnowledgeEncoder:
    """Encodes knowledge texts with the encoder of a name; see `ModelConfig.knowledge_encoder`.

    The decoder's own encoder encodes a text every time, because a phase may train it. All others
    are frozen and encode a text once. Each text is encoded alone: in a batch, the other texts could
    change the last bits, and a resumed run would not be exact.
    """

    def __init__(self, name: str, model: EmoSym, device: torch.device) -> None:
        self.name = name
        self.model = model
        self.device = device
        self.encoder = None if name == DECODER else load_text_encoder(name).to(device)
        self._cache: dict[str, Tensor] = {}

    @property
    def width(self) -> int | None:
        """Width P of the features; None for the decoder's encoder."""
        return None if self.encoder is None else self.encoder.width

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return features [B, P] on the model's device, in its type."""
        if self.encoder is None:
            return self.model.generator.denoiser.pool_text(texts)
        for text in texts:
            if text not in self._cache:
                self._cache[text] = self.encoder([text])[0].cpu()
        features = torch.stack([self._cache[text] for text in texts])
        return features.to(self.model.understander.reasoner.emotion)
