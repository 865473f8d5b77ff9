"""The text encoders of a decoder, CLIP and T5, used as in the pipelines of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from model_zoo.decoders.prompt_tokens import PromptTokenizer, PromptTokenizers


class ClipTextEncoder(nn.Module):
    """A CLIP text encoder. Padding is not masked, because Stable Diffusion was trained with it.

    Args:
        model: with a projection, the pooled vectors are the projected ones.
        tokenizer: of the model.
        penultimate: whether the states are those before the last layer; otherwise those after the
            final norm.
    """

    def __init__(
        self,
        model: CLIPTextModel | CLIPTextModelWithProjection,
        tokenizer: PreTrainedTokenizerBase,
        *,
        penultimate: bool,
    ) -> None:
        super().__init__()
        config: Any = model.config
        self.model = model
        self.tokenizer = tokenizer
        self.penultimate = penultimate
        self.projects = isinstance(model, CLIPTextModelWithProjection)
        self.width: int = config.hidden_size
        self.pooled_width: int = config.projection_dim if self.projects else self.width
        self.window: int = config.max_position_embeddings

    def forward(self, tokens: BatchEncoding) -> tuple[Tensor, Tensor]:
        """Return states [B, T, E] and pooled vectors [B, P]; T is `window`."""
        return self._encode(torch.as_tensor(tokens.input_ids))

    def pool(self, texts: Sequence[str]) -> Tensor:
        """Return pooled vectors [B, P]; for a long text the mean over its windows."""
        windows = self.tokenizer(
            list(texts),
            padding="max_length",
            padding_side="right",
            max_length=self.window,
            truncation=True,
            return_overflowing_tokens=True,
        )
        pooled = self._encode(torch.as_tensor(windows.input_ids))[1]
        owner = torch.as_tensor(windows["overflow_to_sample_mapping"], device=pooled.device)
        total = pooled.new_zeros(len(texts), self.pooled_width).index_add(0, owner, pooled)
        return total / owner.bincount(minlength=len(texts))[:, None]

    def _encode(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        output: Any = self.model(ids.to(self.model.device), output_hidden_states=True)
        states = output.hidden_states[-2] if self.penultimate else output.last_hidden_state
        return states, output.text_embeds if self.projects else output.pooler_output


class T5TextEncoder(nn.Module):
    """A T5 encoder; its pooled vector is the mean of its states.

    Args:
        model: the encoder.
        tokenizer: of the model.
        window: length of a tokenised prompt.
        masked: whether padding is masked and its states are zero; otherwise it is encoded like
            text, as in SD3.
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
        # The empty prompt has no tokens: unmask one position so that the softmax is defined.
        attended = mask.clone()
        attended[:, 0] = True
        states = self.model(input_ids=ids, attention_mask=attended).last_hidden_state
        states = states * mask[..., None]
        return states, states.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)

    def pool(self, texts: Sequence[str]) -> Tensor:
        """Return pooled vectors [B, E] of texts of any length."""
        return self(self.tokenizer(list(texts), padding=True, padding_side="right"))[1]


class PromptEncoder(nn.Module):
    """All text encoders of a decoder together.

    | encoders | tokens | pooled |
    |---|---|---|
    | one CLIP (SD 1.x, 2.x) | its last states | none |
    | two CLIPs (SDXL) | their states, concatenated along E | of the CLIP with a projection |
    | two CLIPs and T5 (SD3) | both CLIPs', padded to E, then those of T5 | of both CLIPs |
    | T5 | its states, zero at padding | their mean |

    Ref: SDXL, arXiv 2307.01952, section 2.1; SD3, arXiv 2403.03206, section 4.

    Args:
        clips: CLIP encoders in their order.
        t5: the T5 encoder.
        width: E, the width of the denoiser's cross-attention.
        blank: number of zero tokens in place of T5's, as in SD3 without T5.
        zero_empty: whether the features of the empty prompt are zero instead of encoded.

    Raises:
        UserError: encoders whose widths do not fit `width`.
    """

    def __init__(
        self,
        clips: Sequence[ClipTextEncoder],
        t5: T5TextEncoder | None,
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
        self.tokenizers = PromptTokenizers(
            [PromptTokenizer(clip.tokenizer, clip.window) for clip in clips],
            None if t5 is None else PromptTokenizer(t5.tokenizer, t5.window),
        )
        if clips:
            self._pooled_encoders = [i for i, clip in enumerate(clips) if clip.projects]
        else:
            self._pooled_encoders = [0]
        encoders = self.encoders
        self.pooled_width = sum(encoders[i].pooled_width for i in self._pooled_encoders)
        self._knowledge_encoders = self._pooled_encoders or list(range(len(encoders)))
        self.knowledge_width = sum(encoders[i].pooled_width for i in self._knowledge_encoders)
        clip_width = sum(clip.width for clip in clips)
        padded = t5 is not None or blank
        fits = clip_width == width or (clip_width < width and padded)
        if not fits or (t5 is not None and t5.width != width):
            widths = [f"CLIP {clip.width}" for clip in clips]
            widths += [f"T5 {t5.width}"] if t5 is not None else []
            raise UserError(
                "text encoders and denoiser differ in width",
                got=" + ".join(widths),
                expected=f"{width}, the width of the denoiser's cross-attention",
            )

    @property
    def encoders(self) -> list[Any]:
        """The `ClipTextEncoder`s and the `T5TextEncoder`, in the order of their folders."""
        return [*self.clips, *([self.t5] if self.t5 is not None else [])]

    def forward(self, prompts: Sequence[str], *, truncate: bool = False) -> TextFeatures:
        """Encode prompts; the arguments are those of `PromptTokenizers`, as are the errors."""
        batches = self.tokenizers(prompts, truncate=truncate)
        outputs = [encoder(tokens) for encoder, tokens in zip(self.encoders, batches, strict=True)]
        parts = [outputs[-1][0]] if self.t5 is not None else []
        if len(self.clips):
            states = torch.cat([states for states, _ in outputs[: len(self.clips)]], -1)
            padded = nn.functional.pad(states, (0, self.width - states.shape[-1]))
            zeros = [states.new_zeros(len(prompts), self.blank, self.width)] if self.blank else []
            parts = [padded, *parts, *zeros]
        tokens = torch.cat(parts, 1)
        none = tokens.new_zeros(len(prompts), 0)
        pooled = torch.cat([none, *(outputs[i][1] for i in self._pooled_encoders)], -1)
        if self.zero_empty:
            keep = tokens.new_tensor([float(prompt != "") for prompt in prompts])
            tokens, pooled = tokens * keep[:, None, None], pooled * keep[:, None]
        return TextFeatures(tokens, pooled)

    def pool(self, texts: Sequence[str]) -> Tensor:
        """Return vectors [B, `knowledge_width`] of texts of any length; nothing is truncated."""
        return torch.cat([self.encoders[i].pool(texts) for i in self._knowledge_encoders], -1)
