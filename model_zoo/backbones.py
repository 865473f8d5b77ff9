"""Image-text-to-text backbones of the Qwen-VL family, and their processors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2VLImageProcessorPil,
)

from emosym.errors import UserError
from emosym.interfaces import Answers, Embedded, Prompts
from model_zoo.tokenizer import load_tokenizer, save_tokenizer
from model_zoo.weights import FIX, pretrained, reading

FAMILIES = ("qwen2_vl", "qwen2_5_vl")
"""`model_type` of the backbones that pass the contract tests."""


class QwenVL(nn.Module):
    """A Qwen2-VL or Qwen2.5-VL model behind `emosym.interfaces.Backbone`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.width: int = model.config.text_config.hidden_size

    @property
    def language(self) -> nn.Module:
        """The language model alone, without vision tower and output projection."""
        return self.model.model.language_model

    def embed_prompts(self, prompts: Prompts) -> Embedded:
        """Embed tokens and put each image's features in the place of its image tokens."""
        embeddings = self.embed_tokens(prompts.input_ids)
        image_token = self.model.config.image_token_id
        is_image = prompts.input_ids == image_token
        if prompts.pixel_values is not None:
            features = self.model.model.get_image_features(
                prompts.pixel_values, prompts.image_grid
            ).pooler_output
            pixels = torch.cat(list(features)).to(embeddings.dtype)
            if len(pixels) != int(is_image.sum()):
                raise UserError(
                    "image tokens and image features differ in number",
                    got=f"{int(is_image.sum())} tokens",
                    expected=f"{len(pixels)} features",
                    fix="build prompts with the processor of the same model",
                )
            embeddings = embeddings.masked_scatter(is_image[..., None], pixels)
        positions, _ = self.model.model.get_rope_index(
            prompts.input_ids,
            mm_token_type_ids=is_image.int(),
            image_grid_thw=prompts.image_grid,
            attention_mask=prompts.attention_mask,
        )
        return Embedded(embeddings, prompts.attention_mask, positions)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed ids [B, L] -> [B, L, D]."""
        return self.model.get_input_embeddings()(ids)

    def read(
        self,
        embeddings: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Run the language model; with a cache, `embeddings` are the new tokens only."""
        return self.language(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Project hidden states [..., D] to the vocabulary."""
        return self.model.lm_head(hidden)

    def new_cache(self) -> DynamicCache:
        """Return an empty key-value cache."""
        return DynamicCache(config=self.model.config.text_config)


class QwenVLProcessor:
    """Chat template, tokenizer and image processor of a Qwen-VL model (no torchvision needed)."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, images: Qwen2VLImageProcessorPil, image_token: str
    ) -> None:
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "left"
        self.images = images
        self.image_token = image_token
        self.end_of_turn: int = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.forbidden_ids = [i for i in tokenizer.all_special_ids if i != self.end_of_turn]

    def prompts(self, texts: Sequence[str], images: Sequence[Image.Image] | None = None) -> Prompts:
        """Tokenise one user turn for each text, with one image each or none at all."""
        self._check(texts)
        if images is None:
            turns = [self._turn(text, 0) for text in texts]
            tokens = self.tokenizer(turns, padding=True, return_tensors="pt")
            return Prompts(tokens.input_ids, tokens.attention_mask)
        if len(images) != len(texts):
            raise ValueError(f"{len(texts)} texts with {len(images)} images")
        patches = self.images(images=list(images), return_tensors="pt")
        merged = self.images.merge_size**2
        counts = (patches.image_grid_thw.prod(1) // merged).tolist()
        turns = [self._turn(text, count) for text, count in zip(texts, counts, strict=True)]
        tokens = self.tokenizer(turns, padding=True, return_tensors="pt")
        return Prompts(
            tokens.input_ids, tokens.attention_mask, patches.pixel_values, patches.image_grid_thw
        )

    def answers(self, texts: Sequence[str]) -> Answers:
        """Tokenise assistant texts and close each turn."""
        self._check(texts)
        closed = [text + "<|im_end|>" for text in texts]
        tokens = self.tokenizer(closed, padding=True, padding_side="right", return_tensors="pt")
        return Answers(tokens.input_ids, tokens.attention_mask)

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """Return the text of each row, without control tokens."""
        rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in rows]

    def _check(self, texts: Sequence[str]) -> None:
        """Refuse texts that could open or close a turn, or stand for an image."""
        for text in texts:
            held = [token for token in self.tokenizer.all_special_tokens if token in text]
            if held:
                raise UserError(
                    f"the text {text[:60]!r} holds the control token {held[0]!r}",
                    fix="remove it",
                )

    def _turn(self, text: str, image_tokens: int) -> str:
        content: list[dict[str, str]] = [{"type": "text", "text": text}]
        if image_tokens:
            content.insert(0, {"type": "image"})
        turn = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return turn.replace(self.image_token, self.image_token * image_tokens)

    def save(self, folder: Path) -> None:
        """Write tokenizer, template and image processor beside the model."""
        save_tokenizer(self.tokenizer, folder)
        self.images.save_pretrained(folder)


def load_backbone(source: Path, dtype: torch.dtype) -> tuple[QwenVL, QwenVLProcessor]:
    """Load a backbone and its processor from a Hugging Face folder.

    Raises:
        UserError: a `model_type` outside `FAMILIES`, unreadable files, weights that do not fit.
    """
    with reading(source):
        config = AutoConfig.from_pretrained(source)
        images = Qwen2VLImageProcessorPil.from_pretrained(source)
    _check_family(config.model_type, source)
    _check_patches(config.vision_config, images, source)
    tokenizer = load_tokenizer(source, config.text_config.vocab_size)
    model = pretrained(
        AutoModelForImageTextToText, source, dtype=dtype, attn_implementation=attention(dtype)
    )
    processor = _processor(tokenizer, images, config)
    with reading(source):  # what its files cannot do is told here, not in the first question
        processor.prompts(["?"], [Image.new("RGB", (64, 64))])
    return QwenVL(model), processor


def new_backbone(
    config: dict, tokenizer: PreTrainedTokenizerBase, image_processor: dict
) -> tuple[QwenVL, QwenVLProcessor]:
    """Build a backbone with random weights from a Hugging Face config."""
    _check_family(config["model_type"], "the preset")
    typed = AutoConfig.for_model(**config)
    model = AutoModelForImageTextToText.from_config(typed, attn_implementation="sdpa")
    return QwenVL(model), _processor(tokenizer, Qwen2VLImageProcessorPil(**image_processor), typed)


def attention(dtype: torch.dtype) -> str:
    """Return flash attention where it is usable (CUDA, half precision, installed), else SDPA."""
    from transformers.utils import is_flash_attn_2_available

    half = dtype in (torch.float16, torch.bfloat16)
    usable = half and torch.cuda.is_available() and is_flash_attn_2_available()
    return "flash_attention_2" if usable else "sdpa"


def _processor(tokenizer, images, config) -> QwenVLProcessor:
    return QwenVLProcessor(
        tokenizer, images, tokenizer.convert_ids_to_tokens(config.image_token_id)
    )


def _check_family(family: str, source: object) -> None:
    if family not in FAMILIES:
        raise UserError(
            f"backbone family {family!r} of {source} is not supported",
            expected=f"one of {', '.join(FAMILIES)}",
        )


def _check_patches(vision, images: Qwen2VLImageProcessorPil, source: Path) -> None:
    """Refuse an image processor that cuts images otherwise than the vision tower expects."""
    for key, own in (
        ("patch_size", vision.patch_size),
        ("temporal_patch_size", vision.temporal_patch_size),
        ("merge_size", vision.spatial_merge_size),
    ):
        if getattr(images, key) != own:
            raise UserError(
                f"{source / 'preprocessor_config.json'}: {key} does not fit config.json",
                got=repr(getattr(images, key)),
                expected=own,
                fix=FIX,
            )
