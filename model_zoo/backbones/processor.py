"""The processor of Qwen-VL backbones: chat template, tokenizer and image processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import PreTrainedTokenizerBase, Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from emosym.errors import UserError
from emosym.interfaces import Answers, Prompts
from model_zoo.received.chat_template import turn_form
from model_zoo.text.tokenizer import TAGS, save_tokenizer


class QwenVLProcessor:
    """Chat template, tokenizer and image processor of a Qwen-VL model (no torchvision needed).

    Implements `emosym.interfaces.Processor`.

    Args:
        tokenizer: with a chat template.
        images: the image processor.
        image_token: the placeholder token of an image.
        vocabulary: number of rows of the model's embedding matrix.

    Raises:
        ValueError: no chat template, or one that `turn_form` refuses.
    """

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
        named = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        self.form = turn_form(
            tokenizer.get_chat_template(), image_token, tuple(sorted(named.items()))
        )
        end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
        if not isinstance(end_of_turn, int):
            raise UserError("the tokenizer has no end-of-turn token", expected="<|im_end|>")
        self.end_of_turn = end_of_turn
        ids = tokenizer.get_vocab()
        # All added tokens are control tokens (vision, roles, tools, latent placeholders), whether
        # or not they are marked special. Of these only the tags of an answer may be generated.
        added = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
        self.control_tokens = sorted(added - set(TAGS))
        # The embedding may have more rows than there are tokens: Qwen pads it to 151,936.
        unused = set(range(vocabulary)) - set(ids.values())
        self.forbidden_ids: Sequence[int] = sorted(
            (unused | {ids[token] for token in self.control_tokens}) - {self.end_of_turn}
        )

    def prompts(
        self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]] | None = None
    ) -> Prompts:
        """Tokenise one user turn for each text.

        Args:
            texts: [B] texts.
            images: for each text the images that precede it, any number; None for no images.

        Raises:
            UserError: a text holds a control token.
            ValueError: `texts` and `images` differ in length.
        """
        self.check(texts)
        rows: list[list[Image.Image]] = [[] for _ in texts]
        if images is not None:
            rows = [list(row) for row in images]
        if len(rows) != len(texts):
            raise ValueError(f"got {len(texts)} texts, but images for {len(rows)}")
        pixels: Tensor | None = None
        grid: Tensor | None = None
        counts: list[int] = []
        if flat := [image for row in rows for image in row]:
            patches = self.images(images=flat, return_tensors="pt")
            pixels, grid = patches["pixel_values"], patches["image_grid_thw"]
            counts = (patches["image_grid_thw"].prod(1) // self.images.merge_size**2).tolist()
        lengths = iter(counts)
        turns = [
            self._turn(text, [next(lengths) for _ in row])
            for text, row in zip(texts, rows, strict=True)
        ]
        tokens = self.tokenizer(turns, padding=True, return_tensors="pt")
        return Prompts(tokens.input_ids, tokens.attention_mask, pixels, grid)

    def see(self, texts: Sequence[str], pixels: Tensor) -> Prompts:
        """Tokenise one user turn for each text, with one image each.

        As `prompts`, but images are not rounded to 8 bits, and gradients reach `pixels`.

        Args:
            texts: [B] texts.
            pixels: [B, 3, H, W] in [-1, 1].
        """
        settings: Any = self.images
        multiple = settings.patch_size * settings.merge_size
        rows, columns = pixels.shape[2:]
        height, width = smart_resize(
            rows,
            columns,
            multiple,
            settings.size["shortest_edge"],
            settings.size["longest_edge"],
        )
        if (height, width) != (rows, columns):
            pixels = interpolate(pixels, (height, width), mode="bicubic", antialias=True)
            pixels = pixels.clamp(-1, 1)
        mean, std = (
            pixels.new_tensor(each)[:, None, None]
            for each in (settings.image_mean, settings.image_std)
        )
        frames = repeat(
            ((pixels + 1) / 2 - mean) / std,
            "b c h w -> b t c h w",
            t=settings.temporal_patch_size,
        )
        patches = rearrange(
            frames,
            "b t c (h mh ph) (w mw pw) -> (b h w mh mw) (c t ph pw)",
            mh=settings.merge_size,
            mw=settings.merge_size,
            ph=settings.patch_size,
            pw=settings.patch_size,
        )
        grid = torch.tensor([[1, height // settings.patch_size, width // settings.patch_size]])
        count = int(grid.prod()) // settings.merge_size**2
        turns = [self._turn(text, [count]) for text in texts]
        tokens = self.tokenizer(turns, padding=True, return_tensors="pt")
        return Prompts(
            tokens.input_ids, tokens.attention_mask, patches, grid.expand(len(texts), -1)
        )

    def answers(self, texts: Sequence[str]) -> Answers:
        """Tokenise assistant texts, each with the end-of-turn token; right-padded."""
        self.check(texts)
        closed = [text + "<|im_end|>" for text in texts]
        tokens = self.tokenizer(closed, padding=True, padding_side="right", return_tensors="pt")
        return Answers(tokens.input_ids, tokens.attention_mask)

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """Return the text of each row, without control tokens."""
        rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
        return [str(self.tokenizer.decode(row, skip_special_tokens=True)) for row in rows]

    def check(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text that holds a control token (of a turn, or of an image)."""
        for text in texts:
            tokens = [token for token in self.control_tokens if token in text]
            if tokens:
                raise UserError(
                    f"the text {text[:60]!r} holds the control token {tokens[0]!r}",
                    fix="remove it",
                )

    def _turn(self, text: str, image_tokens: Sequence[int]) -> str:
        """Return one user turn and the header of the assistant's turn, as text.

        Args:
            text: of the user.
            image_tokens: number of image tokens of each image.
        """
        token, image = self.image_token, self.form.image
        images = [image.replace(token, token * count) for count in image_tokens]
        return self.form.turn(text, images)

    def save(self, folder: Path) -> None:
        """Write tokenizer, chat template and image processor to a folder."""
        save_tokenizer(self.tokenizer, folder)
        self.images.save_pretrained(folder)
