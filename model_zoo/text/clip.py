"""CLIP embeddings of images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerBase

from emosym.pictures.loading import load_image
from model_zoo.hub import local_folder
from model_zoo.pretrained import load_pretrained, user_errors
from model_zoo.received.folder import check_folder
from model_zoo.received.limits import check_sides, check_special
from model_zoo.text.tokenizer import load_tokenizer

BATCH_SIZE = 32
"""Images or texts in one forward."""


class ClipEmbedder(nn.Module):
    """A frozen CLIP with tokenizer and image processor. Ref: Radford et al., arXiv 2103.00020."""

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: PreTrainedTokenizerBase,
        images: CLIPImageProcessorPil,
    ) -> None:
        super().__init__()
        config: Any = model.config
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.processor = images
        self.width: int = config.projection_dim
        self.window: int = config.text_config.max_position_embeddings

    @property
    def scale(self) -> Tensor:
        """The factor of cosines before a softmax (exp of `logit_scale`), a scalar of about 100."""
        return self.model.logit_scale.exp()

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors [N, P] of N images."""
        rows = [torch.empty(0, self.width, device=self.model.device)]
        for start in range(0, len(images), BATCH_SIZE):
            batch = [load_image(image) for image in images[start : start + BATCH_SIZE]]
            pixels = self.processor(images=batch, return_tensors="pt").pixel_values
            rows.append(self.model.get_image_features(pixels.to(self.model.device)).pooler_output)
        return nn.functional.normalize(torch.cat(rows), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors [N, P] of N texts.

        A longer text is truncated to `window` tokens, as in CLIPScore's and PickScore's releases.
        """
        rows = [torch.empty(0, self.width, device=self.model.device)]
        for start in range(0, len(texts), BATCH_SIZE):
            batch = list(texts[start : start + BATCH_SIZE])
            tokens = self.tokenizer(
                batch,
                padding=True,
                padding_side="right",
                truncation=True,
                max_length=self.window,
                return_tensors="pt",
            ).to(self.model.device)
            output = self.model.get_text_features(tokens.input_ids, tokens.attention_mask)
            rows.append(output.pooler_output)
        return nn.functional.normalize(torch.cat(rows), dim=-1)


def load_clip(source: str | Path, device: torch.device | str = "cpu") -> ClipEmbedder:
    """Load a CLIP with both towers from a Hugging Face folder or hub id, in float32.

    Raises:
        UserError: files that cannot be read, weights that do not fit, files of different models.
    """
    folder = local_folder(source)
    check_folder(folder)
    with user_errors(folder):
        images = CLIPImageProcessorPil.from_pretrained(folder)
    for size in (images.size, images.crop_size):
        check_sides(dict(size or {}), folder / "preprocessor_config.json")
    model = load_pretrained(CLIPModel, folder, dtype=torch.float32)
    check_special(model.config.text_config, folder)
    tokenizer = load_tokenizer(folder, model.config.text_config.vocab_size)
    clip = ClipEmbedder(model, tokenizer, images)
    with user_errors(folder):  # run once now, so that damaged files are an error at loading
        clip.embed_images([Image.new("RGB", (64, 48))])
        clip.embed_texts(["?"])
    return clip.to(device)
