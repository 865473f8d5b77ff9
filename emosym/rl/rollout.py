"""Sampling answers token by token from the understanding branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from emosym.errors import UserError
from emosym.interfaces import Answers, Prompts
from emosym.models.losses import token_log_probs
from emosym.models.understander import DecodingState, Understander, UnderstanderOutput
from emosym.rl.token_policy import TokenPolicy


@dataclass(slots=True, kw_only=True)
class Rollout:
    """Sampling settings and, after sampling, the answers with their log-probabilities.

    A prompt is prefilled once for all its answers.
    """

    end_of_turn: int
    """The id that closes an answer; it is part of the answer."""
    forbidden_ids: Sequence[int]
    """Ids that are never sampled (vision and control tokens)."""
    max_completion_length: int
    """Longest answer L, tokens."""
    num_generations: int = 1
    """G answers a prompt, row b·G + g."""
    uniform: Tensor | None = None
    """Draws in [0, 1), [B·G, L]: token t is the inverse CDF at uniform[:, t]. None is greedy."""
    temperature: float = 1.0
    """Divides the logits."""
    answers: Answers = field(init=False)
    """[B·G, ≤ L], after sampling."""
    log_probs: Tensor = field(init=False)
    """[B·G, ≤ L] under the sampling policy: with temperature, without forbidden ids; 0 after an
    answer's end."""

    @property
    def policy(self) -> TokenPolicy:
        """Return the distribution that tokens are sampled from."""
        return TokenPolicy(self.temperature, self.forbidden_ids)

    @torch.no_grad()
    def __call__(self, understander: Understander, state: DecodingState) -> Answers:
        """Sample answers from the state before the first token, which is updated in place.

        Raises:
            UserError: probabilities that are not finite.
        """
        count, device = len(state.logits), state.logits.device
        policy = self.policy
        ids = torch.full((count, self.max_completion_length), self.end_of_turn, device=device)
        mask = torch.zeros_like(ids)
        log_probs = torch.zeros((count, self.max_completion_length), device=device)
        # Answers that the state still holds, and which of them have not ended.
        rows = torch.arange(count, device=device)
        is_open = torch.ones_like(rows, dtype=torch.bool)
        for step in range(self.max_completion_length):
            logits = policy.logits(state.logits)
            token = torch.where(is_open, self._sample(logits, rows, step), self.end_of_turn)
            ids[rows, step] = token
            mask[rows, step] = is_open.long()
            log_probs[rows, step] = torch.where(is_open, token_log_probs(logits, token), 0.0)
            is_open = is_open & (token != self.end_of_turn)
            remaining = int(is_open.sum())
            if not remaining or step + 1 == self.max_completion_length:
                break
            if remaining <= len(rows) // 2:  # each copy of the cache at least halves it
                (kept,) = is_open.nonzero(as_tuple=True)
                understander.select_rows(state, kept)
                rows, token, is_open = rows[kept], token[kept], is_open[kept]
            understander.decode_step(state, token)
        length = step + 1
        self.answers = Answers(ids[:, :length], mask[:, :length])
        self.log_probs = log_probs[:, :length]
        return self.answers

    def _sample(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """Return the next token of each remaining answer, whose rows in [B·G] are given."""
        if self.uniform is None:
            return logits.argmax(-1)
        cumulative = logits.softmax(-1).cumsum(-1)
        if not cumulative[:, -1].isfinite().all():
            raise UserError(
                "the probabilities of the next token are not finite", fix="lower the learning rate"
            )
        point = self.uniform[:, step, None].to(cumulative)[rows] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, point, right=True).squeeze(1)


@torch.no_grad()
def sample_answers(
    understander: Understander, prompts: Prompts, rollout: Rollout
) -> UnderstanderOutput:
    """Sample answers into `rollout`; return the output of the B prompts, without answer logits.

    Raises:
        UserError: probabilities that are not finite.
    """
    prefill = understander.prefill(prompts)
    rollout(understander, understander.start_decoding(prefill, rollout.num_generations))
    return prefill.output
