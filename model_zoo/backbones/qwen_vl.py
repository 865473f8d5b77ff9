"""Image-text-to-text backbones of the Qwen-VL family."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2VLImageProcessorPil,
)

from emosym.errors import UserError
from emosym.interfaces import Backbone, InputEmbeddings, Prompts
from model_zoo.backbones.decoding import SharedPrefixCache, read_one
from model_zoo.backbones.processor import QwenVLProcessor
from model_zoo.pretrained import FIX, load_pretrained, user_errors
from model_zoo.received.folder import check_folder
from model_zoo.received.limits import check_ids, check_pixels, check_sides, check_special
from model_zoo.text.tokenizer import load_tokenizer

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Supported values of `model_type`: those that pass the contract tests."""


class QwenVL(Backbone):
    """A model of one of `FAMILIES`.

    Args:
        model: what `AutoModelForImageTextToText` loads.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.width: int = model.config.text_config.hidden_size

    @property
    def _inner(self) -> Any:
        """The model without its output projection; the families share no class for it."""
        return self.model.model

    @property
    def _embedding_layer(self) -> Any:
        return self.model.get_input_embeddings()

    @property
    def language(self) -> nn.Module:
        """The language model without vision tower and output projection."""
        return self._inner.language_model

    @property
    def vision(self) -> nn.Module:
        """The vision tower with its merger."""
        return self._inner.visual

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass (gradient checkpointing)."""
        self.model.activation_checkpointing_enable({"use_reentrant": False})

    @property
    def shares_prefix(self) -> bool:
        """Whether answers can be read through the cache of their prompt, with gradients.

        False while gradient checkpointing is active: a checkpointed layer writes no cache.
        """
        return not (torch.is_grad_enabled() and self._checkpointed_layers())

    @property
    def token_embeddings(self) -> Tensor:
        """The embedding matrix of the vocabulary, [vocabulary, D]."""
        return self._embedding_layer.weight

    def embed_prompts(self, prompts: Prompts) -> InputEmbeddings:
        """Embed tokens and replace the embeddings of image tokens by image features.

        Raises:
            UserError: the numbers of image tokens and of image features differ.
        """
        embeddings = self.embed_tokens(prompts.input_ids)
        is_image = prompts.input_ids == self.model.config.image_token_id
        tokens, features, deepstack = int(is_image.sum()), 0, None
        if prompts.pixel_values is not None:
            output = self._inner.get_image_features(prompts.pixel_values, prompts.image_grid)
            image_features = torch.cat(list(output.pooler_output)).to(embeddings.dtype)
            features = len(image_features)
        if tokens != features:
            raise UserError(
                "the numbers of image tokens and of image features differ",
                got=f"{tokens} tokens",
                expected=f"{features} features",
                fix="build prompts with the processor of the same model",
            )
        if features:
            embeddings = embeddings.masked_scatter(is_image[..., None], image_features)
            layers = getattr(output, "deepstack_features", None)  # only Qwen3-VL has them
            if layers:
                stacked = torch.stack([torch.cat(list(layer)) for layer in layers])
                zeros = embeddings.new_zeros(len(layers), *embeddings.shape)
                deepstack = zeros.masked_scatter(is_image[..., None], stacked.to(zeros.dtype))
        positions, _ = self._inner.get_rope_index(
            prompts.input_ids,
            mm_token_type_ids=is_image.int(),
            image_grid_thw=prompts.image_grid,
            attention_mask=prompts.attention_mask,
        )
        return InputEmbeddings(embeddings, prompts.attention_mask, positions, deepstack)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed ids [B, L] -> [B, L, D]."""
        return self._embedding_layer(ids)

    def read(self, tokens: InputEmbeddings, cache: DynamicCache | None = None) -> Tensor:
        """Run the language model on T tokens and return its last hidden states [B, T, D].

        With a cache, `tokens` are only those that follow the cached ones. Gradient checkpointing
        is off while a cache is written.
        """
        with self._without_checkpointing() if cache is not None else contextlib.nullcontext():
            return self._run(tokens, cache).last_hidden_state

    def read_layers(self, tokens: InputEmbeddings) -> list[Tensor]:
        """Run the language model and return the states [B, T, D] after each layer.

        The last ones are those after the final norm, as from `read`.
        """
        states = self._run(tokens, None, output_hidden_states=True).hidden_states
        return list(states[1:])  # the first are the embeddings

    def _run(self, tokens: InputEmbeddings, cache: DynamicCache | None, **options: Any) -> Any:
        """Return the language model's output, a `BaseModelOutputWithPast`."""
        deepstack: dict[str, Any] = {}
        if tokens.deepstack is not None:
            mask = torch.zeros_like(tokens.embeddings[..., 0], dtype=torch.bool)
            mask[:, : tokens.deepstack.shape[2]] = True
            deepstack = {
                "visual_pos_masks": mask,
                "deepstack_visual_embeds": list(
                    rearrange(tokens.deepstack, "n b p d -> n (b p) d")
                ),
            }
        return self.language(
            inputs_embeds=tokens.embeddings,
            attention_mask=tokens.mask,
            position_ids=tokens.positions,
            past_key_values=cache,
            use_cache=cache is not None,
            **deepstack,
            **options,
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Project hidden states [..., D] to logits over the vocabulary."""
        head: Any = self.model.lm_head
        return head(hidden)

    def branch(self, cache: DynamicCache, mask: Tensor, group: int) -> SharedPrefixCache:
        """Return a cache in which `group` answers continue each prompt; without gradient.

        Args:
            cache: of B prompts, filled by `read`.
            mask: [B, T], the attention mask of the prompts.
            group: answers a prompt.
        """
        return SharedPrefixCache(cache, mask, group)

    @torch.no_grad()
    def read_one(self, embedded: Tensor, positions: Tensor, branch: SharedPrefixCache) -> Tensor:
        """Run one token of each answer [N, D] at positions [3, N] -> last states [N, D]."""
        return read_one(self.language, embedded, positions, branch)

    def new_cache(self) -> DynamicCache:
        """Return an empty key-value cache."""
        return DynamicCache(config=self.model.config.text_config)

    def _checkpointed_layers(self) -> list[Any]:
        """Return the layers of the language model whose gradient checkpointing is active."""
        layers: Any = self.language.layers
        return [layer for layer in layers if layer.training and layer.gradient_checkpointing]

    @contextlib.contextmanager
    def _without_checkpointing(self) -> Iterator[None]:
        layers = self._checkpointed_layers()
        for layer in layers:
            layer.gradient_checkpointing = False
        try:
            yield
        finally:
            for layer in layers:
                layer.gradient_checkpointing = True


def load_backbone(source: Path, dtype: torch.dtype) -> tuple[QwenVL, QwenVLProcessor]:
    """Load a backbone and its processor from a Hugging Face folder.

    Raises:
        UserError: a `model_type` outside `FAMILIES`; files that cannot be read; weights that do
            not fit the configuration.
    """
    check_folder(source)
    with user_errors(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        images = Qwen2VLImageProcessorPil.from_pretrained(source)
    _check_family(config.model_type, source)
    _check_attention(config.text_config, source)
    _check_patches(config.vision_config, images, source)
    _check_ids(config, source)
    _check_rope(config.text_config, source)
    tokenizer = load_tokenizer(source, config.text_config.vocab_size)
    model = load_pretrained(
        AutoModelForImageTextToText, source, dtype=dtype, attn_implementation=attention(dtype)
    )
    with user_errors(source):
        processor = _processor(tokenizer, images, config)
        # run once now, so that damaged files are an error at loading
        processor.prompts(["?"], [[Image.new("RGB", (64, 64))]])
    return QwenVL(model), processor


def new_backbone(
    config: dict[str, Any], tokenizer: PreTrainedTokenizerBase, image_processor: dict[str, Any]
) -> tuple[QwenVL, QwenVLProcessor]:
    """Build a backbone with random weights from a Hugging Face configuration."""
    _check_family(config["model_type"], "the preset")
    typed = AutoConfig.for_model(**config)
    _check_attention(typed.text_config, "the preset")
    model = AutoModelForImageTextToText.from_config(typed, attn_implementation="sdpa")
    return QwenVL(model), _processor(tokenizer, Qwen2VLImageProcessorPil(**image_processor), typed)


def attention(dtype: torch.dtype) -> str:
    """Return flash attention 2 if usable (CUDA, half precision, installed), else SDPA."""
    from transformers.utils import is_flash_attn_2_available

    half = dtype in (torch.float16, torch.bfloat16)
    usable = half and torch.cuda.is_available() and is_flash_attn_2_available()
    return "flash_attention_2" if usable else "sdpa"


def _processor(
    tokenizer: PreTrainedTokenizerBase, images: Qwen2VLImageProcessorPil, config: Any
) -> QwenVLProcessor:
    image_token = str(tokenizer.convert_ids_to_tokens(config.image_token_id))
    return QwenVLProcessor(tokenizer, images, image_token, config.text_config.vocab_size)


def _check_attention(config: PreTrainedConfig, source: object) -> None:
    """Refuse sliding-window attention: answers attend to their whole prompt."""
    if "sliding_attention" in getattr(config, "layer_types", ()):
        raise UserError(
            f"the backbone of {source} has layers with sliding-window attention",
            expected="full attention in every layer",
            fix="set use_sliding_window to false in its config.json",
        )


def _check_family(family: str, source: object) -> None:
    if family not in FAMILIES:
        raise UserError(
            f"backbone family {family!r} of {source} is not supported",
            expected=f"one of {', '.join(FAMILIES)}",
        )


def _check_ids(config: Any, source: Path) -> None:
    """Refuse token ids outside of the vocabulary, of those that are used."""
    names = ("image_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {name: getattr(config, name, None) for name in names}
    if ids["image_token_id"] is None:
        raise UserError(f"{source / 'config.json'} has no image_token_id", fix=FIX)
    check_ids(ids, config.text_config.vocab_size, source / "config.json")
    check_special(config.text_config, source)


def _check_rope(text: Any, source: Path) -> None:
    """Refuse position embeddings whose sections do not make up half a head."""
    if text.num_attention_heads < 1:
        raise UserError(
            f"{source / 'config.json'}: num_attention_heads is not positive",
            got=text.num_attention_heads,
            fix=FIX,
        )
    half = (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) // 2
    sections = (text.rope_parameters or {}).get("mrope_section")
    counts = isinstance(sections, list) and all(type(one) is int and one > 0 for one in sections)
    if sections is not None and not (counts and len(sections) == 3 and sum(sections) == half):
        raise UserError(
            f"{source / 'config.json'}: mrope_section does not fit the attention heads",
            got=str(sections)[:40],
            expected=f"three numbers with the sum {half}",
            fix=FIX,
        )


def _check_patches(vision: Any, images: Qwen2VLImageProcessorPil, source: Path) -> None:
    """Refuse an image processor whose patches differ from those of the vision tower."""
    size: Any = images.size
    check_pixels(size["shortest_edge"], size["longest_edge"], source / "preprocessor_config.json")
    names = ("patch_size", "spatial_merge_size", "temporal_patch_size", "window_size")
    sides = {name: getattr(vision, name, None) for name in names}
    check_sides(sides, source / "config.json")
    least = vision.patch_size * vision.spatial_merge_size
    if sides["window_size"] is not None and sides["window_size"] < least:
        raise UserError(
            f"{source / 'config.json'}: window_size is less than one merged patch",
            got=sides["window_size"],
            expected=f"at least {least}",
            fix=FIX,
        )
    for key, expected in (
        ("patch_size", vision.patch_size),
        ("temporal_patch_size", vision.temporal_patch_size),
        ("merge_size", vision.spatial_merge_size),
    ):
        if getattr(images, key) != expected:
            raise UserError(
                f"{source / 'preprocessor_config.json'}: {key} does not fit config.json",
                got=repr(getattr(images, key)),
                expected=expected,
                fix=FIX,
            )
