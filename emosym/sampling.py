"""Sampling answers token by token from the understanding branch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from emosym.errors import UserError
from emosym.interfaces import Answers, Prompts
from emosym.losses import token_log_probs
from emosym.understander import Reading, Understander


@torch.no_grad()
def sample_answers(
    understander: Understander,
    prompts: Prompts,
    *,
    end_of_turn: int,
    forbidden: Sequence[int],
    max_tokens: int,
    repeats: int = 1,
    uniform: Tensor | None = None,
    temperature: float = 1.0,
) -> tuple[Answers, Reading, Tensor]:
    """Answer each prompt `repeats` times; greedy when `uniform` is None.

    Args:
        understander: the model.
        prompts: B user turns.
        end_of_turn: the id that closes an answer; it is part of the answer.
        forbidden: ids that are never sampled (vision and control tokens).
        max_tokens: longest answer L.
        repeats: G answers a prompt, row b·G + g.
        uniform: draws in [0, 1), [B·G, L]; token t is the inverse CDF at uniform[:, t].
        temperature: divides the logits.

    Returns:
        The answers [B·G, ≤ L], the reading of the prompts [B], and log-probabilities
        [B·G, ≤ L] under the policy that sampled: tempered, restricted to allowed tokens; 0 behind
        an answer's end.

    Raises:
        UserError: probabilities that are not finite.
    """
    state = understander.open_answer(prompts, repeats)
    count, device = len(state.logits), state.logits.device
    bar = forbidden_bias(state.logits.shape[-1], forbidden).to(device)
    ids = torch.full((count, max_tokens), end_of_turn, device=device)
    mask = torch.zeros_like(ids)
    log_probs = torch.zeros((count, max_tokens), device=device)
    # Answers that the state still holds, and which of them have not ended.
    rows = torch.arange(count, device=device)
    is_open = torch.ones_like(rows, dtype=torch.bool)
    for step in range(max_tokens):
        logits = state.logits.float() / temperature + bar
        if uniform is None:
            token = logits.argmax(-1)
        else:
            mass = logits.softmax(-1).cumsum(-1)
            if not mass[:, -1].isfinite().all():
                raise UserError(
                    "the model's word probabilities are not finite", fix="lower the learning rate"
                )
            point = uniform[:, step, None].to(mass)[rows] * mass[:, -1:]
            token = torch.searchsorted(mass, point, right=True).squeeze(1)
        token = torch.where(is_open, token, end_of_turn)
        ids[rows, step] = token
        mask[rows, step] = is_open.long()
        log_probs[rows, step] = torch.where(is_open, token_log_probs(logits, token), 0.0)
        is_open = is_open & (token != end_of_turn)
        left = int(is_open.sum())
        if not left or step + 1 == max_tokens:
            break
        if left <= len(rows) // 2:  # each copy of the cache at least halves it
            (kept,) = is_open.nonzero(as_tuple=True)
            understander.keep_answers(state, kept)
            rows, token, is_open = rows[kept], token[kept], is_open[kept]
        understander.extend_answer(state, token)
    length = step + 1
    return Answers(ids[:, :length], mask[:, :length]), state.reading, log_probs[:, :length]


def forbidden_bias(vocabulary: int, forbidden: Sequence[int]) -> Tensor:
    """Return [vocabulary] with -inf at forbidden ids and 0 elsewhere."""
    bias = torch.zeros(vocabulary)
    bias[list(forbidden)] = float("-inf")
    return bias
