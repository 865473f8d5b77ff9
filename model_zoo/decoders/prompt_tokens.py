"""Prompts as the tokens of a decoder's text encoders, and how long a prompt may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import BatchEncoding, PreTrainedTokenizerBase

from emosym.errors import UserError


class PromptTokenizer(NamedTuple):
    """The tokenizer of one text encoder."""

    tokenizer: PreTrainedTokenizerBase
    window: int
    """Tokens that the encoder reads, with those that begin and end a text."""


class PromptTokenizers:
    """The tokenizers of all text encoders of a decoder.

    T5 decides how long a prompt may be where there is one: the CLIPs beside it then read the first
    tokens only, as in diffusers' pipelines.

    Args:
        clips: of the CLIP encoders, in their order.
        t5: of T5.
    """

    def __init__(self, clips: Sequence[PromptTokenizer], t5: PromptTokenizer | None) -> None:
        self.clips = clips
        self.t5 = t5

    @property
    def window(self) -> int:
        """Most tokens of a prompt."""
        return min(one.window for one in self._whole)

    @property
    def _whole(self) -> Sequence[PromptTokenizer]:
        """The tokenizers whose encoders must read a whole prompt."""
        return self.clips if self.t5 is None else [self.t5]

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Return the tokens of each prompt, which must not be more than `window`."""
        counts = [
            [len(ids) for ids in one.tokenizer(list(prompts), verbose=False).input_ids]
            for one in self._whole
        ]
        return [max(of_prompt) for of_prompt in zip(*counts, strict=True)]

    def __call__(self, prompts: Sequence[str], *, truncate: bool = False) -> list[BatchEncoding]:
        """Return the token ids [B, window] of prompts for each encoder, CLIPs first.

        Args:
            prompts: B prompts.
            truncate: cut prompts that are too long, as diffusers does; otherwise they are refused.

        Raises:
            UserError: a prompt is too long.
        """
        counts = [] if truncate or not prompts else self.count(prompts)
        longest = max(range(len(counts)), key=counts.__getitem__, default=0)
        if counts and counts[longest] > self.window:
            raise UserError(
                f"the prompt {prompts[longest][:60]!r}… is too long for the decoder's text encoder",
                got=f"{counts[longest]} tokens",
                expected=f"at most {self.window}",
                fix="shorten the prompt",
            )
        return [
            one.tokenizer(
                list(prompts),
                padding="max_length",
                padding_side="right",
                max_length=one.window,
                truncation=True,
            )
            for one in (*self.clips, *([] if self.t5 is None else [self.t5]))
        ]
