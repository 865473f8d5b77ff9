"""Image-text-to-text backbones of the Qwen-VL family, and their processors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2VLImageProcessorPil,
)
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from emosym.errors import UserError
from emosym.interfaces import Answers, Backbone, InputEmbeddings, Prompts
from model_zoo.backbones.decoding import Branch, read_one
from model_zoo.pretrained import FIX, pretrained, reading
from model_zoo.text.tokenizer import TAGS, load_tokenizer, save_tokenizer

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""`model_type` of the backbones that pass the contract tests."""


class QwenVL(Backbone):
    """A model of one of `FAMILIES` behind `emosym.interfaces.Backbone`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.width: int = model.config.text_config.hidden_size

    @property
    def language(self) -> nn.Module:
        """The language model alone, without vision tower and output projection."""
        return self.model.model.language_model

    @property
    def vision(self) -> nn.Module:
        """The vision tower and its merger."""
        return self.model.model.visual

    def checkpoint_gradients(self) -> None:
        """Recompute layers in the backward pass instead of keeping their activations."""
        self.model.activation_checkpointing_enable({"use_reentrant": False})

    @property
    def shares_prefix(self) -> bool:
        """Whether answers can be read through their prompt's cache, gradients included.

        A layer that is recomputed keeps no keys and values.
        """
        return not (torch.is_grad_enabled() and self._recomputed())

    @property
    def token_embeddings(self) -> Tensor:
        """The embeddings of the vocabulary, [vocabulary, D]."""
        return self.model.get_input_embeddings().weight

    def embed_prompts(self, prompts: Prompts) -> InputEmbeddings:
        """Embed tokens and put each image's features in the place of its image tokens.

        Raises:
            UserError: image tokens and image features differ in number.
        """
        embeddings = self.embed_tokens(prompts.input_ids)
        is_image = prompts.input_ids == self.model.config.image_token_id
        tokens, features, deepstack = int(is_image.sum()), 0, None
        if prompts.pixel_values is not None:
            seen = self.model.model.get_image_features(prompts.pixel_values, prompts.image_grid)
            pixels = torch.cat(list(seen.pooler_output)).to(embeddings.dtype)
            features = len(pixels)
        if tokens != features:
            raise UserError(
                "image tokens and image features differ in number",
                got=f"{tokens} tokens",
                expected=f"{features} features",
                fix="build prompts with the processor of the same model",
            )
        if features:
            embeddings = embeddings.masked_scatter(is_image[..., None], pixels)
            layers = getattr(seen, "deepstack_features", None)  # of Qwen3-VL alone
            if layers:
                found = torch.stack([torch.cat(list(layer)) for layer in layers])
                blank = embeddings.new_zeros(len(layers), *embeddings.shape)
                deepstack = blank.masked_scatter(is_image[..., None], found.to(blank.dtype))
        positions, _ = self.model.model.get_rope_index(
            prompts.input_ids,
            mm_token_type_ids=is_image.int(),
            image_grid_thw=prompts.image_grid,
            attention_mask=prompts.attention_mask,
        )
        return InputEmbeddings(embeddings, prompts.attention_mask, positions, deepstack)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed ids [B, L] -> [B, L, D]."""
        return self.model.get_input_embeddings()(ids)

    def read(self, tokens: InputEmbeddings, cache: DynamicCache | None = None) -> Tensor:
        """Run the language model; with a cache, `tokens` are the new ones only.

        Layers keep their activations while they write to a cache, whatever `checkpoint_gradients`.
        """
        with self._kept_whole() if cache is not None else contextlib.nullcontext():
            return self._run(tokens, cache).last_hidden_state

    def read_layers(self, tokens: InputEmbeddings) -> list[Tensor]:
        """Run the language model and return the states after each layer, the last one normed."""
        states = self._run(tokens, None, output_hidden_states=True).hidden_states
        return list(states[1:])  # the first are the embeddings

    def _run(
        self, tokens: InputEmbeddings, cache: DynamicCache | None, **options
    ) -> BaseModelOutputWithPast:
        injected = {}
        if tokens.deepstack is not None:
            places = torch.zeros_like(tokens.embeddings[..., 0], dtype=torch.bool)
            places[:, : tokens.deepstack.shape[2]] = True
            injected = {
                "visual_pos_masks": places,
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
            **injected,
            **options,
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Project hidden states [..., D] to the vocabulary."""
        return self.model.lm_head(hidden)

    def branch(self, cache: DynamicCache, mask: Tensor, group: int) -> Branch:
        """Let `group` answers go on from each prompt [B, T] of a cache, without gradient."""
        return Branch(cache, mask, group)

    @torch.no_grad()
    def read_one(self, embedded: Tensor, positions: Tensor, branch: Branch) -> Tensor:
        """Read one more token of each answer [N, D] at positions [3, N] -> last states [N, D]."""
        return read_one(self.language, embedded, positions, branch)

    def new_cache(self) -> DynamicCache:
        """Return an empty key-value cache."""
        return DynamicCache(config=self.model.config.text_config)

    def _recomputed(self) -> list[nn.Module]:
        """Return the layers of the language model that would be recomputed, and keep no cache."""
        layers = self.language.layers
        return [layer for layer in layers if layer.training and layer.gradient_checkpointing]

    @contextlib.contextmanager
    def _kept_whole(self) -> Iterator[None]:
        layers = self._recomputed()
        for layer in layers:
            layer.gradient_checkpointing = False
        try:
            yield
        finally:
            for layer in layers:
                layer.gradient_checkpointing = True


class QwenVLProcessor:
    """Chat template, tokenizer and image processor of a Qwen-VL model (no torchvision needed)."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        images: Qwen2VLImageProcessorPil,
        image_token: str,
        vocabulary: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "left"
        self.images = images
        self.image_token = image_token
        self.end_of_turn: int = tokenizer.convert_tokens_to_ids("<|im_end|>")
        known = tokenizer.get_vocab()
        # What was added to a vocabulary is for control (vision, roles, tools, placeholders of
        # latents), special or not; only the tags of an answer are said.
        added = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
        self.control_tokens = sorted(added - set(TAGS))
        # An embedding may have more rows than there are tokens: Qwen's is padded to 151,936.
        nameless = set(range(vocabulary)) - set(known.values())
        self.forbidden_ids = sorted(
            (nameless | {known[token] for token in self.control_tokens}) - {self.end_of_turn}
        )

    def prompts(
        self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]] | None = None
    ) -> Prompts:
        """Tokenise one user turn for each text, after its own images (any number, or none)."""
        self.check(texts)
        rows = [[] for _ in texts] if images is None else [list(row) for row in images]
        if len(rows) != len(texts):
            raise ValueError(f"{len(texts)} texts with images for {len(rows)}")
        patches: dict[str, Tensor] = {}
        counts: list[int] = []
        if flat := [image for row in rows for image in row]:
            patches = self.images(images=flat, return_tensors="pt")
            counts = (patches["image_grid_thw"].prod(1) // self.images.merge_size**2).tolist()
        lengths = iter(counts)
        turns = [
            self._turn(text, [next(lengths) for _ in row])
            for text, row in zip(texts, rows, strict=True)
        ]
        tokens = self.tokenizer(turns, padding=True, return_tensors="pt")
        return Prompts(
            tokens.input_ids,
            tokens.attention_mask,
            patches.get("pixel_values"),
            patches.get("image_grid_thw"),
        )

    def see(self, texts: Sequence[str], pixels: Tensor) -> Prompts:
        """Tokenise turns after one picture each, given as pixels [B, 3, H, W] in [-1, 1].

        As `prompts`, but for the rounding to 8 bits, and with gradient to the pixels.
        """
        found = self.images
        grain = found.patch_size * found.merge_size
        size = found.size
        height, width = smart_resize(
            *pixels.shape[2:], grain, size["shortest_edge"], size["longest_edge"]
        )
        if (height, width) != tuple(pixels.shape[2:]):
            pixels = interpolate(pixels, (height, width), mode="bicubic", antialias=True)
            pixels = pixels.clamp(-1, 1)
        mean, std = (
            pixels.new_tensor(each)[:, None, None] for each in (found.image_mean, found.image_std)
        )
        frames = repeat(
            ((pixels + 1) / 2 - mean) / std, "b c h w -> b t c h w", t=found.temporal_patch_size
        )
        patches = rearrange(
            frames,
            "b t c (h mh ph) (w mw pw) -> (b h w mh mw) (c t ph pw)",
            mh=found.merge_size,
            mw=found.merge_size,
            ph=found.patch_size,
            pw=found.patch_size,
        )
        grid = torch.tensor([[1, height // found.patch_size, width // found.patch_size]])
        count = int(grid.prod()) // found.merge_size**2
        turns = [self._turn(text, [count]) for text in texts]
        tokens = self.tokenizer(turns, padding=True, return_tensors="pt")
        return Prompts(
            tokens.input_ids, tokens.attention_mask, patches, grid.expand(len(texts), -1)
        )

    def answers(self, texts: Sequence[str]) -> Answers:
        """Tokenise assistant texts and close each turn."""
        self.check(texts)
        closed = [text + "<|im_end|>" for text in texts]
        tokens = self.tokenizer(closed, padding=True, padding_side="right", return_tensors="pt")
        return Answers(tokens.input_ids, tokens.attention_mask)

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """Return the text of each row, without control tokens."""
        rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in rows]

    def check(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text that could open or close a turn, or stand for an image."""
        for text in texts:
            held = [token for token in self.control_tokens if token in text]
            if held:
                raise UserError(
                    f"the text {text[:60]!r} holds the control token {held[0]!r}",
                    fix="remove it",
                )

    def _turn(self, text: str, image_tokens: Sequence[int]) -> str:
        """Return a user turn with images of so many tokens each, and the assistant's opening."""
        content = [{"type": "image"}] * len(image_tokens) + [{"type": "text", "text": text}]
        turn = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        first, *others = turn.split(self.image_token)
        spans = zip(image_tokens, others, strict=True)
        return first + "".join(self.image_token * count + rest for count, rest in spans)

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
    _check_attention(config.text_config, source)
    _check_patches(config.vision_config, images, source)
    tokenizer = load_tokenizer(source, config.text_config.vocab_size)
    model = pretrained(
        AutoModelForImageTextToText, source, dtype=dtype, attn_implementation=attention(dtype)
    )
    processor = _processor(tokenizer, images, config)
    with reading(source):  # what its files cannot do is told here, not in the first question
        processor.prompts(["?"], [[Image.new("RGB", (64, 64))]])
    return QwenVL(model), processor


def new_backbone(
    config: dict, tokenizer: PreTrainedTokenizerBase, image_processor: dict
) -> tuple[QwenVL, QwenVLProcessor]:
    """Build a backbone with random weights from a Hugging Face config."""
    _check_family(config["model_type"], "the preset")
    typed = AutoConfig.for_model(**config)
    _check_attention(typed.text_config, "the preset")
    model = AutoModelForImageTextToText.from_config(typed, attn_implementation="sdpa")
    return QwenVL(model), _processor(tokenizer, Qwen2VLImageProcessorPil(**image_processor), typed)


def attention(dtype: torch.dtype) -> str:
    """Return flash attention where it is usable (CUDA, half precision, installed), else SDPA."""
    from transformers.utils import is_flash_attn_2_available

    half = dtype in (torch.float16, torch.bfloat16)
    usable = half and torch.cuda.is_available() and is_flash_attn_2_available()
    return "flash_attention_2" if usable else "sdpa"


def _processor(tokenizer, images, config) -> QwenVLProcessor:
    image_token = tokenizer.convert_ids_to_tokens(config.image_token_id)
    return QwenVLProcessor(tokenizer, images, image_token, config.text_config.vocab_size)


def _check_attention(config: PreTrainedConfig, source: object) -> None:
    """Refuse windows: answers are read through all of their prompt."""
    if "sliding_attention" in getattr(config, "layer_types", ()):
        raise UserError(
            f"the backbone of {source} looks back through a sliding window",
            expected="full attention in every layer",
            fix="set use_sliding_window to false in its config.json",
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
