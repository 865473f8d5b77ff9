"""The distribution that answers are sampled from, and the log-probabilities and entropies in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emosym.models.losses import row_by_row, token_log_probs


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """Softmax of a language model's logits / temperature, without forbidden ids.

    Sampling and training share it, so that equal logits have equal probabilities. Logits become
    float32 before anything else: the quotient of bfloat16 logits has three digits, and would change
    probabilities by some percent.
    """

    temperature: float
    """Divides the logits."""
    forbidden_ids: Sequence[int]
    """Ids with probability 0."""

    def logits(self, logits: Tensor) -> Tensor:
        """Return the policy's logits in float32, [..., vocabulary]; -inf at forbidden ids."""
        forbidden = torch.tensor(list(self.forbidden_ids), dtype=torch.long, device=logits.device)
        return (logits.float() / self.temperature).index_fill(-1, forbidden, float("-inf"))

    def log_probs(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return log π of tokens [N, L] from logits [N, L, vocabulary], with gradient.

        The policy's logits exist for one row at a time.
        """

        def log_probs(logits: Tensor, ids: Tensor) -> Tensor:
            return token_log_probs(self.logits(logits), ids)

        return row_by_row(log_probs, logits, ids)

    @torch.no_grad()
    def entropy(self, logits: Tensor) -> Tensor:
        """Return the entropy of each token's distribution in nats, [N, L]."""
        rows = [torch.special.entr(self.logits(row).softmax(-1)).sum(-1) for row in logits]
        return torch.stack(rows)
