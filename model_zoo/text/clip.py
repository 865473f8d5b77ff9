"""CLIP: images and texts as directions of one space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerBase

from emosym.errors import UserError
from model_zoo.hub import local
from model_zoo.pretrained import pretrained, reading
from model_zoo.text.tokenizer import load_tokenizer

TOGETHER = 32
"""Images or texts read in one batch."""


class Clip(nn.Module):
    """A frozen CLIP with its tokenizer and image processor. Ref: arXiv 2103.00020."""

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: PreTrainedTokenizerBase,
        images: CLIPImageProcessorPil,
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.processor = images
        self.width: int = model.config.projection_dim
        self.window: int = model.config.text_config.max_position_embeddings

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by before a softmax; a scalar, about 100."""
        return self.model.logit_scale.exp()

    @torch.no_grad()
    def of_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors [N, P]."""
        rows = [torch.empty(0, self.width, device=self.model.device)]
        for start in range(0, len(images), TOGETHER):
            batch = [image.convert("RGB") for image in images[start : start + TOGETHER]]
            pixels = self.processor(images=batch, return_tensors="pt").pixel_values
            rows.append(self.model.get_image_features(pixels.to(self.model.device)).pooler_output)
        return nn.functional.normalize(torch.cat(rows), dim=-1)

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors [N, P].

        Raises:
            UserError: a text is longer than CLIP reads.
        """
        rows = [torch.empty(0, self.width, device=self.model.device)]
        for start in range(0, len(texts), TOGETHER):
            batch = list(texts[start : start + TOGETHER])
            tokens = self.tokenizer(
                batch, padding=True, padding_side="right", return_tensors="pt"
            ).to(self.model.device)
            self._check_length(batch, tokens.attention_mask)
            found = self.model.get_text_features(tokens.input_ids, tokens.attention_mask)
            rows.append(found.pooler_output)
        return nn.functional.normalize(torch.cat(rows), dim=-1)

    def _check_length(self, texts: Sequence[str], mask: Tensor) -> None:
        for text, length in zip(texts, mask.sum(1).tolist(), strict=True):
            if length > self.window:
                raise UserError(
                    f"the text {text[:60]!r} is too long for CLIP",
                    got=f"{length} tokens",
                    expected=f"at most {self.window}",
                    fix="shorten the prompt, or take a judge that reads longer ones",
                )


def load_clip(source: str | Path, device: torch.device | str = "cpu") -> Clip:
    """Load a whole CLIP from a Hugging Face folder or hub id, in float32.

    Raises:
        UserError: unreadable files, weights that do not fit, files of different models.
    """
    folder = local(source)
    with reading(folder):
        images = CLIPImageProcessorPil.from_pretrained(folder)
    model = pretrained(CLIPModel, folder, dtype=torch.float32)
    tokenizer = load_tokenizer(folder, model.config.text_config.vocab_size)
    clip = Clip(model, tokenizer, images)
    with reading(folder):  # what its files cannot do is told here, not in the first judgement
        clip.of_images([Image.new("RGB", (64, 48))])
        clip.of_texts(["?"])
    return clip.to(device)
