"""Training, loading and saving of tokenizers: SentencePiece with Qwen's chat format, and CLIP's."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AddedToken,
    AutoTokenizer,
    CLIPTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
)

from model_zoo.pretrained import user_errors
from model_zoo.received.limits import check_tokenizer

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
"""Control tokens of the chat format."""
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
"""Tags of an answer; tokens, but not control tokens."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen-VL's format: one turn per message, one placeholder token per image."""

LAYOUTS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Sets of files, one of which a tokenizer's folder must have (CLIP's has no tokenizer.json)."""


def train_tokenizer(corpus: Iterable[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Train a byte-fallback BPE tokenizer on `corpus`; any text can be encoded.

    Decoding restores a text except for two limits of SentencePiece: one leading space may be
    lost, and U+2581 becomes a space.

    Args:
        corpus: texts.
        vocabulary: largest number of tokens, without `TAGS`.
    """
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder, "tokenizer")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus),
            model_prefix=str(prefix),
            vocab_size=vocabulary,
            model_type="bpe",
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            control_symbols=SPECIAL,
            user_defined_symbols=[*TAGS, "\n"],
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
        tokenizer = LlamaTokenizer.from_pretrained(
            folder,
            pad_token="<pad>",
            unk_token="<unk>",
            bos_token=None,
            eos_token="<|im_end|>",
            add_bos_token=False,
            padding_side="left",
            extra_special_tokens=[s for s in SPECIAL if s != "<|im_end|>"],
            model_max_length=4096,
        )
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def train_clip_tokenizer(
    corpus: Iterable[str], vocabulary: int, window: int
) -> PreTrainedTokenizerBase:
    """Train a tokenizer like CLIP's: lower case, byte-level BPE, texts up to `window` tokens.

    All bytes are in the vocabulary, because CLIP's unknown token is its end-of-text token.
    """
    # Fixed ids make the training deterministic: ties between pairs are broken by their ids.
    letters = [byte + end for end in ("", "</w>") for byte in sorted(ByteLevel.alphabet())]
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|startoftext|>", "<|endoftext|>", *letters],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    blank = CLIPTokenizer().backend_tokenizer
    blank.train_from_iterator(corpus, trainer)
    model = json.loads(blank.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=window)


def load_tokenizer(folder: Path, vocabulary: int) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a Hugging Face folder.

    Args:
        folder: with the files of one of `LAYOUTS`; without them transformers would return an
            empty tokenizer.
        vocabulary: number of rows of the model's embedding matrix.

    Raises:
        UserError: files that are missing or cannot be read; more tokens than `vocabulary`; no
            padding token.
    """
    with user_errors(folder):
        if not any(all((folder / name).is_file() for name in names) for names in LAYOUTS):
            raise FileNotFoundError(f"no {LAYOUTS[0][0]} in it")
        if (folder / LAYOUTS[0][0]).is_file():
            check_tokenizer(folder / LAYOUTS[0][0])
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        highest = max(tokenizer.get_vocab().values(), default=0)
        if max(len(tokenizer), highest + 1) > vocabulary:
            raise ValueError(
                f"{len(tokenizer)} tokens for a model of {vocabulary}, the last with id {highest}"
            )
        tokenizer(["?"], padding=True)
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer; the same tokenizer always gives the same files."""
    tokenizer.backend_tokenizer.no_padding()  # otherwise those of the last call are written
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
