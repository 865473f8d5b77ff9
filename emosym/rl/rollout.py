"""Sampling answers token by token from the understanding branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from emosym.errors import UserError
from emosym.interfaces import Answers, Prompts
from emosym.models.losses import token_log_probs
from emosym.models.understander import Decoding, Understander, UnderstanderOutput


@dataclass(slots=True, kw_only=True)
class Rollout:
    """How answers are sampled, and what was.

    Given to an understander in place of answers, it makes one pass of prompt, sampling and reading:
    the prompt is read once for all three.
    """

    end_of_turn: int
    """The id that closes an answer; it is part of the answer."""
    forbidden: Sequence[int]
    """Ids that are never sampled (vision and control tokens)."""
    max_tokens: int
    """Longest answer L."""
    repeats: int = 1
    """G answers a prompt, row b·G + g."""
    uniform: Tensor | None = None
    """Draws in [0, 1), [B·G, L]: token t is the inverse CDF at uniform[:, t]. None is greedy."""
    temperature: float = 1.0
    """Divides the logits."""
    answers: Answers = field(init=False)
    """[B·G, ≤ L], once sampled."""
    log_probs: Tensor = field(init=False)
    """[B·G, ≤ L] under the policy that sampled: tempered, restricted to allowed tokens; 0 behind
    an answer's end."""

    @torch.no_grad()
    def __call__(self, understander: Understander, state: Decoding) -> Answers:
        """Sample from a state at its beginning, which is used up; return the answers.

        Raises:
            UserError: probabilities that are not finite.
        """
        count, device = len(state.logits), state.logits.device
        bar = forbidden_bias(state.logits.shape[-1], self.forbidden).to(device)
        ids = torch.full((count, self.max_tokens), self.end_of_turn, device=device)
        mask = torch.zeros_like(ids)
        log_probs = torch.zeros((count, self.max_tokens), device=device)
        # Answers that the state still holds, and which of them have not ended.
        rows = torch.arange(count, device=device)
        is_open = torch.ones_like(rows, dtype=torch.bool)
        for step in range(self.max_tokens):
            logits = state.logits.float() / self.temperature + bar
            token = torch.where(is_open, self._pick(logits, rows, step), self.end_of_turn)
            ids[rows, step] = token
            mask[rows, step] = is_open.long()
            log_probs[rows, step] = torch.where(is_open, token_log_probs(logits, token), 0.0)
            is_open = is_open & (token != self.end_of_turn)
            left = int(is_open.sum())
            if not left or step + 1 == self.max_tokens:
                break
            if left <= len(rows) // 2:  # each copy of the cache at least halves it
                (kept,) = is_open.nonzero(as_tuple=True)
                understander.keep_answers(state, kept)
                rows, token, is_open = rows[kept], token[kept], is_open[kept]
            understander.extend_answers(state, token)
        length = step + 1
        self.answers = Answers(ids[:, :length], mask[:, :length])
        self.log_probs = log_probs[:, :length]
        return self.answers

    def _pick(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """Return the next token of each row [B·G that are left]."""
        if self.uniform is None:
            return logits.argmax(-1)
        mass = logits.softmax(-1).cumsum(-1)
        if not mass[:, -1].isfinite().all():
            raise UserError(
                "the model's word probabilities are not finite", fix="lower the learning rate"
            )
        point = self.uniform[:, step, None].to(mass)[rows] * mass[:, -1:]
        return torch.searchsorted(mass, point, right=True).squeeze(1)


@torch.no_grad()
def sample_answers(
    understander: Understander, prompts: Prompts, rollout: Rollout
) -> UnderstanderOutput:
    """Answer B prompts without reading the answers again; return the prompts' reading.

    Raises:
        UserError: probabilities that are not finite.
    """
    opened = understander.open_answer(prompts)
    rollout(understander, understander.begin_answers(opened, rollout.repeats))
    return opened.reading


def forbidden_bias(vocabulary: int, forbidden: Sequence[int]) -> Tensor:
    """Return [vocabulary] with -inf at forbidden ids and 0 elsewhere."""
    bias = torch.zeros(vocabulary)
    bias[list(forbidden)] = float("-inf")
    return bias
