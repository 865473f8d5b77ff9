"""Reconstruction of a text from latent states. Ref: ICAE (arXiv 2307.06945), section 2.2.1."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor, nn

from emosym.interfaces import Answers, Backbone, InputEmbeddings


class LatentReader(nn.Module):
    """Reads states as soft tokens, followed by the text; image and question are not given.

    Last hidden states are used as input embeddings without a projection, as in ICAE, so that they
    have to encode the text in a form that the language model can already read.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone: Backbone = backbone

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
