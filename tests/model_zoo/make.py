"""Random models for tests: real architectures, made once for all tests of a process."""

from __future__ import annotations

import functools

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from emosym.model import EmoSym
from model_zoo import zoo
from model_zoo.backbones import QwenVL, QwenVLProcessor, new_backbone
from model_zoo.tokenizer import train_tokenizer
from train.base_texts import base_texts

SIZES = ((64, 64), (96, 48), (40, 90))
"""Widths and heights that become 16, 10 and 18 image tokens."""


@functools.cache
def tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer of about 600 tokens. Do not change it."""
    return train_tokenizer(base_texts(200, 0), 600)


@functools.cache
def tiny() -> EmoSym:
    """Return emosym-tiny with random weights that depend on their inputs. Do not change it."""
    model = zoo.build("emosym-tiny", base_texts(200, 0), 0)
    enlarge(model)
    return model


def enlarge(model: torch.nn.Module) -> None:
    """Move every parameter, so that no zero initialisation hides a path."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.04 * torch.randn(parameter.shape, generator=rng))


def picture(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    """Return an image of coarse random colours."""
    rng = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (4, 4, 3), dtype=torch.uint8, generator=rng).numpy()
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def pictures(count: int) -> list[Image.Image]:
    """Return images of mixed sizes."""
    return [picture(*SIZES[i % len(SIZES)], seed=i) for i in range(count)]


def one_each(count: int) -> list[list[Image.Image]]:
    """Return one image of mixed sizes for each of `count` prompts."""
    return [[image] for image in pictures(count)]


VISION = {
    "qwen2_vl": {"embed_dim": 32, "hidden_size": 48, "mlp_ratio": 2},
    "qwen2_5_vl": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 48,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    },
    "qwen3_vl": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 48,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
    },
}
"""Where the vision towers of the families differ."""
IMAGE_PROCESSOR = {
    "patch_size": 8,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "min_pixels": 4096,
    "max_pixels": 4096,
}
TEXT = {"qwen3_vl": {"head_dim": 16, "num_hidden_layers": 3}}
"""Where the language models differ; a layer follows those that DeepStack adds to."""


@functools.cache
def backbone(family: str) -> tuple[QwenVL, QwenVLProcessor]:
    """Return the smallest sensible backbone of a family with random weights. Do not change it."""
    words = tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made, processor = new_backbone(architecture(family, words), words, IMAGE_PROCESSOR)
    enlarge(made)
    return made.eval(), processor


def architecture(family: str, words: PreTrainedTokenizerBase, rows: int = 0) -> dict:
    """Return the config of `backbone`; its embedding has `rows` more rows than there are words."""
    return {
        "model_type": family,
        "tie_word_embeddings": True,
        "image_token_id": words.convert_tokens_to_ids("<|image_pad|>"),
        "vision_start_token_id": words.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": words.convert_tokens_to_ids("<|vision_end|>"),
        "text_config": {
            "vocab_size": len(words) + rows,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],
            },
            "bos_token_id": None,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
            **TEXT.get(family, {}),
        },
        "vision_config": {
            "depth": 2,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            **VISION[family],
        },
    }
