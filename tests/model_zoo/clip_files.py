"""The files of a tiny CLIP with random weights, as the hub has them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

WIDTH = 24
WINDOW = 40
"""Tokens that it reads; a letter is one, and two more open and close a text."""


def write(folder: Path) -> Path:
    """Write a whole CLIP: both towers, tokenizer of letters, image processor."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [".", ","]
    words = letters + [letter + "</w>" for letter in letters]
    words += ["<|startoftext|>", "<|endoftext|>"]
    text = {"vocab_size": len(words), "bos_token_id": len(words) - 2}
    text |= {"eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    small = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"hidden_size": 32, "projection_dim": WIDTH, **small}
    config = CLIPConfig(
        text_config=text | sizes | {"max_position_embeddings": WINDOW},
        vision_config={"image_size": 32, "patch_size": 16, **sizes},
        projection_dim=WIDTH,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config)
        for parameter in model.parameters():  # so that images and texts matter
            parameter.data += 0.1 * torch.randn(parameter.shape)
        model.logit_scale.data.fill_(3.0)
    model.save_pretrained(folder)
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(
        folder
    )
    square = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    return folder
