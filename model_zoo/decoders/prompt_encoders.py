"""The text encoders of a decoder: CLIP and T5, read as Stable Diffusion reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import (
    BatchEncoding,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerBase,
    T5EncoderModel,
)

from emosym.errors import UserError
from emosym.interfaces import TextFeatures


class Clip(nn.Module):
    """A CLIP text encoder; padding is read like text, as Stable Diffusion learned it.

    Args:
        model: with a projection its pooled vector is the projected one.
        tokenizer: of the model.
        penultimate: whether the states are those before the last layer; else the normalised last.
    """

    def __init__(
        self,
        model: CLIPTextModel | CLIPTextModelWithProjection,
        tokenizer: PreTrainedTokenizerBase,
        *,
        penultimate: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.penultimate = penultimate
        self.projects = isinstance(model, CLIPTextModelWithProjection)
        self.width: int = model.config.hidden_size
        self.pooled_width: int = model.config.projection_dim if self.projects else self.width
        self.window: int = model.config.max_position_embeddings

    def forward(self, tokens: BatchEncoding) -> tuple[Tensor, Tensor]:
        """Return states [B, T, E] and pooled vectors [B, P] of T = `window` ids."""
        return self._read(torch.as_tensor(tokens.input_ids))

    def pool(self, texts: Sequence[str]) -> Tensor:
        """Return pooled vectors [B, P]; of a long text the mean over its windows."""
        cut = self.tokenizer(
            list(texts),
            padding="max_length",
            padding_side="right",
            max_length=self.window,
            truncation=True,
            return_overflowing_tokens=True,
        )
        pooled = self._read(torch.as_tensor(cut.input_ids))[1]
        owner = torch.as_tensor(cut["overflow_to_sample_mapping"], device=pooled.device)
        total = pooled.new_zeros(len(texts), self.pooled_width).index_add(0, owner, pooled)
        return total / owner.bincount(minlength=len(texts))[:, None]

    def _read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        said = self.model(ids.to(self.model.device), output_hidden_states=True)
        states = said.hidden_states[-2] if self.penultimate else said.last_hidden_state
        return states, said.text_embeds if self.projects else said.pooler_output


class T5(nn.Module):
    """A T5 encoder; its pooled vector is the mean of the states.

    Args:
        model: the encoder.
        tokenizer: of the model.
        window: tokens of a prompt.
        masked: whether padding is neither read nor heard; else it is text, as in SD3.
    """

    def __init__(
        self,
        model: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        window: int,
        *,
        masked: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.window = window
        self.masked = masked
        self.width: int = model.config.d_model
        self.pooled_width: int = self.width

    def forward(self, tokens: BatchEncoding) -> tuple[Tensor, Tensor]:
        """Return states [B, T, E] and pooled vectors [B, E]."""
        ids = torch.as_tensor(tokens.input_ids).to(self.model.device)
        if not self.masked:
            states = self.model(input_ids=ids).last_hidden_state
            return states, states.mean(1)
        mask = torch.as_tensor(tokens.attention_mask).to(ids.device).bool()
        # The empty prompt has no token to attend to: keep one so that softmax has a support.
        support = mask.clone()
        support[:, 0] = True
        states = self.model(input_ids=ids, attention_mask=support).last_hidden_state
        states = states * mask[..., None]
        return states, states.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)

    def pool(self, texts: Sequence[str]) -> Tensor:
        """Return pooled vectors [B, E] of texts of any length."""
        return self(self.tokenizer(list(texts), padding=True, padding_side="right"))[1]


class PromptEncoder(nn.Module):
    """All text encoders of a decoder as one.

    | encoders | tokens | pooled |
    |---|---|---|
    | one CLIP (SD 1.x, 2.x) | its last states | none |
    | two CLIPs (SDXL) | their states side by side | of the one that projects |
    | two CLIPs and T5 (SD3) | both, padded to E, then those of T5 | of both CLIPs, side by side |
    | T5 | its states, zero at padding | their mean |

    Ref: SDXL (arXiv 2307.01952) §2.1; SD3 (arXiv 2403.03206) §4.

    Args:
        clips: CLIP encoders in their order.
        t5: the T5 encoder.
        width: E, what the denoiser attends to.
        blank: zero tokens in T5's place, as SD3 has them without it.
        zero_empty: whether the empty prompt is all zeros instead of being read.

    Raises:
        UserError: encoders of another width.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        t5: T5 | None,
        *,
        width: int,
        blank: int = 0,
        zero_empty: bool = False,
    ) -> None:
        super().__init__()
        self.clips = nn.ModuleList(clips)
        self.t5 = t5
        self.width = width
        self.blank = blank
        self.zero_empty = zero_empty
        if clips:
            self._pooling = [i for i, clip in enumerate(clips) if clip.projects]
        else:
            self._pooling = [0]
        self.pooled_width = sum(self.towers[i].pooled_width for i in self._pooling)
        self._knowing = self._pooling or list(range(len(self.towers)))
        self.knowledge_width = sum(self.towers[i].pooled_width for i in self._knowing)
        beside = sum(clip.width for clip in clips)
        padded = t5 is not None or blank
        if beside > width or (beside < width and not padded) or (t5 and t5.width != width):
            found = [f"CLIP {clip.width}" for clip in clips] + ([f"T5 {t5.width}"] if t5 else [])
            raise UserError(
                "text encoders and denoiser differ in width",
                got=" + ".join(found),
                expected=f"{width}, as the denoiser attends to",
            )

    @property
    def towers(self) -> list[Clip | T5]:
        """The encoders in the order of their files."""
        return [*self.clips, *([self.t5] if self.t5 is not None else [])]

    def tokenize(self, prompts: Sequence[str]) -> list[BatchEncoding]:
        """Return prompts as ids [B, window] for each encoder.

        Raises:
            UserError: a prompt is longer than a window; nothing is cut silently.
        """
        return [_tokens(tower, prompts) for tower in self.towers]

    def forward(self, prompts: Sequence[str]) -> TextFeatures:
        """Encode prompts; raises as `tokenize`."""
        said = [
            tower(tokens) for tower, tokens in zip(self.towers, self.tokenize(prompts), strict=True)
        ]
        parts = [said[-1][0]] if self.t5 is not None else []
        if self.clips:
            states = torch.cat([part for part, _ in said[: len(self.clips)]], -1)
            padded = nn.functional.pad(states, (0, self.width - states.shape[-1]))
            zeros = [states.new_zeros(len(prompts), self.blank, self.width)] if self.blank else []
            parts = [padded, *parts, *zeros]
        tokens = torch.cat(parts, 1)
        nothing = tokens.new_zeros(len(prompts), 0)
        pooled = torch.cat([nothing, *(said[i][1] for i in self._pooling)], -1)
        if self.zero_empty:
            heard = tokens.new_tensor([float(prompt != "") for prompt in prompts])
            tokens, pooled = tokens * heard[:, None, None], pooled * heard[:, None]
        return TextFeatures(tokens, pooled)

    def pool(self, texts: Sequence[str]) -> Tensor:
        """Return vectors [B, `knowledge_width`] of texts of any length, each read whole."""
        return torch.cat([self.towers[i].pool(texts) for i in self._knowing], -1)


def _tokens(tower: Clip | T5, prompts: Sequence[str]) -> BatchEncoding:
    tokens = tower.tokenizer(
        list(prompts),
        padding="max_length",
        padding_side="right",
        max_length=tower.window,
        verbose=False,
    )
    lengths = [sum(mask) for mask in tokens.attention_mask]
    if max(lengths, default=0) > tower.window:
        longest = max(range(len(prompts)), key=lengths.__getitem__)
        raise UserError(
            f"the prompt {prompts[longest][:60]!r}… is too long for the decoder's text encoder",
            got=f"{lengths[longest]} tokens",
            expected=f"at most {tower.window}",
            fix="shorten the prompt",
        )
    return tokens
