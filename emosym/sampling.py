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
        [B·G, ≤ L] under the policy that sampled: tempered, restricted to allowed tokens.

    Raises:
        UserError: probabilities that are not finite.
    """
    state = understander.open_answer(prompts, repeats)
    bar = forbidden_bias(state.logits.shape[-1], forbidden).to(state.logits.device)
    ids, log_probs = [], []
    open_rows = torch.ones(len(state.logits), dtype=torch.bool, device=state.logits.device)
    masks = []
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
            point = uniform[:, step, None].to(mass) * mass[:, -1:]
            token = torch.searchsorted(mass, point, right=True).squeeze(1)
        token = torch.where(open_rows, token, end_of_turn)
        ids.append(token)
        masks.append(open_rows)
        log_probs.append(token_log_probs(logits, token))
        open_rows = open_rows & (token != end_of_turn)
        if not open_rows.any():
            break
        if step + 1 < max_tokens:
            understander.extend_answer(state, token)
    answers = Answers(torch.stack(ids, 1), torch.stack(masks, 1).long())
    return answers, state.reading, torch.stack(log_probs, 1)


def forbidden_bias(vocabulary: int, forbidden: Sequence[int]) -> Tensor:
    """Return [vocabulary] with -inf at forbidden ids and 0 elsewhere."""
    bias = torch.zeros(vocabulary)
    bias[list(forbidden)] = float("-inf")
    return bias
