"""Random models for tests: real architectures, made once for all tests of a process."""

from __future__ import annotations

import functools

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from emosym.models.model import EmoSym
from model_zoo import zoo
from model_zoo.backbones.processor import QwenVLProcessor
from model_zoo.backbones.qwen_vl import QwenVL, new_backbone
from model_zoo.decoders.autoencoders import VAE
from model_zoo.decoders.denoisers import StableDiffusion
from model_zoo.decoders.loading import new_decoder
from model_zoo.text.tokenizer import train_tokenizer
from train.data.base_texts import base_texts

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

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
TRANSFORMER = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 48,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 20,
    "pos_embed_max_size": 8,
    "qk_norm": "rms_norm",
}
AUTOENCODER = {
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "mid_block_add_attention": False,
    "sample_size": 16,
    "scaling_factor": 0.5,
}
DDIM = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def _clip(width: int, projection: int | None) -> dict:
    kind = "CLIPTextModel" if projection is None else "CLIPTextModelWithProjection"
    return {
        "architectures": [kind],
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "projection_dim": projection or width,
    }


def _t5(width: int) -> dict:
    return {
        "architectures": ["T5EncoderModel"],
        "d_model": width,
        "d_kv": 8,
        "num_heads": 2,
        "num_layers": 2,
        "d_ff": 32,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
    }


_SDXL = {
    "cross_attention_dim": 28,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 12,
}
_CLIPS = {"text_encoder": _clip(16, 8), "text_encoder_2": _clip(24, 12)}
DECODERS: dict[str, dict] = {
    "sd15": {"unet": UNET, "text_encoder": _clip(16, None), "scheduler": DDIM},
    "sd21": {
        "unet": UNET,
        "text_encoder": _clip(16, None),
        "scheduler": DDIM
        | {
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": True,
        },
    },
    "sdxl": {
        "unet": UNET | _SDXL,
        "text_encoder": _clip(16, None),
        "text_encoder_2": _clip(12, 12),
        "scheduler": DDIM,
    },
    "sd3": {
        "transformer": TRANSFORMER,
        **_CLIPS,
        "text_encoder_3": _t5(48),
        "text_tokens": 24,
        "scheduler": EULER,
    },
    "sd3-without-t5": {
        "transformer": TRANSFORMER,
        **_CLIPS,
        "text_tokens": 24,
        "scheduler": EULER,
    },
    "t5": {
        "transformer": TRANSFORMER | {"pooled_projection_dim": 48},
        "text_encoder": _t5(48),
        "text_tokens": 24,
        "scheduler": EULER,
    },
}
"""The smallest decoders of every family, in the form of a preset."""


@functools.cache
def decoder(family: str) -> tuple[StableDiffusion, VAE]:
    """Return the decoder of a family for 16 px, with random weights. Do not change it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spec = DECODERS[family] | {"vae": AUTOENCODER}
        made = new_decoder(spec, tokenizer(), base_texts(200, 0), 16)
    for part in made:
        enlarge(part)
        part.eval()
    return made


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
