"""Telling a text from latent states alone. Ref: ICAE (arXiv 2307.06945) §2.2.1."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor, nn

from emosym.interfaces import Answers, InputEmbeddings


class LatentReader(nn.Module):
    """Reads states as soft tokens, then the text: no image, no question.

    Last hidden states stand where embeddings do, without a projection, as in ICAE: what they hold
    must be said in a form that the language model reads already.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, states: Tensor, text: Answers) -> Tensor:
        """Return logits [B, L, vocabulary] of text tokens from states [B, K, D], K >= 1."""
        count = states.shape[1]
        embeddings = torch.cat([states, self.backbone.embed_tokens(text.ids)], 1)
        mask = torch.cat([text.mask.new_ones(states.shape[:2]), text.mask], 1)
        steps = torch.arange(embeddings.shape[1], device=states.device)
        positions = repeat(steps, "t -> 3 b t", b=len(states))
        hidden = self.backbone.read(InputEmbeddings(embeddings, mask, positions))
        # The last state predicts the first token of the text, each token the next one.
        return self.backbone.logits(hidden[:, count - 1 : -1])
