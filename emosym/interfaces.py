"""What we ask of a backbone, a decoder and a judge: the seam between `emosym` and `model_zoo`.

Shape legend of the repository: B batch, T prompt tokens, L answer tokens, V visual tokens,
K reasoning tokens, D backbone width, E conditioning width, C H W latent channels/height/width,
G samples a prompt, Y classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from emosym.diffusion.processes import Process
from emosym.records import ImageRequest


@dataclass(frozen=True, slots=True)
class Prompts:
    """Tokenised user turns that end where the assistant's turn begins; left-padded."""

    input_ids: Tensor
    """[B, T]"""
    attention_mask: Tensor
    """[B, T], 1 for real tokens."""
    pixel_values: Tensor | None = None
    """Patches of all images, in the layout of the backbone's image processor."""
    image_grid: Tensor | None = None
    """[images, 3]: patches in time, height and width of each image."""

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device) -> Prompts:
        """Return the same prompts on a device."""
        images = (self.pixel_values, self.image_grid)
        return Prompts(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            *(part if part is None else part.to(device) for part in images),
        )


@dataclass(frozen=True, slots=True)
class Answers:
    """Tokenised assistant text, right-padded; ends with the end-of-turn token where it fits."""

    ids: Tensor
    """[B, L]"""
    mask: Tensor
    """[B, L], 1 for real tokens."""

    def to(self, device: torch.device) -> Answers:
        """Return the same answers on a device."""
        return Answers(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True, slots=True)
class InputEmbeddings:
    """Tokens as the language model reads them: a prompt, or what goes on from a cache."""

    embeddings: Tensor
    """[B, T, D]"""
    mask: Tensor
    """[B, T], after the mask of what the cache holds."""
    positions: Tensor
    """[3, B, T]: temporal, height and width positions."""
    deepstack: Tensor | None = None
    """[N, B, P, D], P <= T: added to the first P states behind layers 1..N; zero but at images.
    Ref: DeepStack (arXiv 2406.04334), in Qwen3-VL."""

    def until(self, length: int) -> InputEmbeddings:
        """Return the first tokens, as many as hold all images at least."""
        return InputEmbeddings(
            self.embeddings[:, :length],
            self.mask[:, :length],
            self.positions[:, :, :length],
            self.deepstack,
        )

    def then(self, embeddings: Tensor, mask: Tensor) -> InputEmbeddings:
        """Append text [B, L, D]; its positions go on from the largest one of each row."""
        steps = torch.arange(1, embeddings.shape[1] + 1, device=mask.device)
        positions = (self.positions.amax((0, 2))[:, None] + steps).expand(3, -1, -1)
        return InputEmbeddings(
            torch.cat([self.embeddings, embeddings], 1),
            torch.cat([self.mask, mask], 1),
            torch.cat([self.positions, positions], 2),
            self.deepstack,
        )

    def repeat(self, times: int) -> InputEmbeddings:
        """Return every row `times` times, copies side by side."""
        if times == 1:
            return self
        deepstack = self.deepstack
        return InputEmbeddings(
            self.embeddings.repeat_interleave(times, 0),
            self.mask.repeat_interleave(times, 0),
            self.positions.repeat_interleave(times, 1),
            deepstack if deepstack is None else deepstack.repeat_interleave(times, 1),
        )


class Processor(Protocol):
    """Turns text and images into the tensors of one backbone, and back."""

    end_of_turn: int
    forbidden_ids: Sequence[int]
    """Ids that may never be sampled in an answer: vision, control and placeholder tokens, and rows
    of the embedding that stand for no token."""

    def check(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text that neither a prompt nor an answer may hold."""

    def prompts(
        self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]] | None
    ) -> Prompts:
        """Tokenise one user turn for each text, after its own images (any number, or none)."""

    def see(self, texts: Sequence[str], pixels: Tensor) -> Prompts:
        """Tokenise turns after one picture each [B, 3, H, W] in [-1, 1], with gradient to it."""

    def answers(self, texts: Sequence[str]) -> Answers:
        """Tokenise assistant texts and close each turn."""

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """Return the text of each row [B, L], without the end of turn."""


class Backbone(Protocol):
    """An image-text-to-text model. Also an `nn.Module`."""

    width: int

    @property
    def shares_prefix(self) -> bool:
        """Whether answers can be read through their prompt's cache, gradients included."""

    @property
    def token_embeddings(self) -> Tensor:
        """The embeddings of the vocabulary, [vocabulary, D]."""

    def checkpoint_gradients(self) -> None:
        """Recompute layers in the backward pass instead of keeping their activations."""

    def embed_prompts(self, prompts: Prompts) -> InputEmbeddings:
        """Embed tokens and images."""

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed ids [B, L] -> [B, L, D]."""

    def read(self, tokens: InputEmbeddings, cache: Any | None = None) -> Tensor:
        """Run the language model on T tokens -> last hidden states [B, T, D]."""

    def read_layers(self, tokens: InputEmbeddings) -> list[Tensor]:
        """Run the language model -> states [B, T, D] after each layer; the last is `read`'s."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Project hidden states [..., D] to the vocabulary."""

    def new_cache(self) -> Any:
        """Return an empty key-value cache for `read`.

        It has `batch_repeat_interleave(G)`.
        """

    def branch(self, cache: Any, mask: Tensor, group: int) -> Any:
        """Let `group` answers go on from each prompt [B, T] of a cache, without gradient.

        What is returned has `keep(rows)`, which goes on with some answers only.
        """

    def read_one(self, embedded: Tensor, positions: Tensor, branch: Any) -> Tensor:
        """Read one more token of each answer [N, D] at positions [3, N] -> last states [N, D]."""


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """What the decoder's own text encoder says of a prompt."""

    tokens: Tensor
    """[B, T, E]; zero at padding, unless the decoder was trained to read it."""
    pooled: Tensor
    """[B, P]; P is 0 for a decoder without such an input."""

    def expand(self, count: int) -> TextFeatures:
        """Return those of one prompt (B = 1) for `count` images, without copies."""
        return TextFeatures(self.tokens.expand(count, -1, -1), self.pooled.expand(count, -1))


class Denoiser(Protocol):
    """A conditional denoiser with its text encoder. Also an `nn.Module`."""

    process: Process
    """What its outputs mean."""
    token_width: int
    """E of `TextFeatures.tokens`."""
    pooled_width: int
    """P of `TextFeatures.pooled`."""
    knowledge_width: int
    """Width of `pool_text`'s vectors."""

    def tokenize(self, prompts: Sequence[str]) -> Any:
        """Return what `encode_text` reads; raise UserError for a prompt that is too long."""

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encode prompts; the empty string is the unconditional prompt."""

    def pool_text(self, texts: Sequence[str]) -> Tensor:
        """Return one vector for each knowledge text, which may be longer than prompts."""

    def checkpoint_gradients(self) -> None:
        """Recompute layers in the backward pass instead of keeping their activations."""

    def predict(self, latents: Tensor, time: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """Return the output of `process` at times [B]: [B, C, H, W] -> same."""


class Autoencoder(Protocol):
    """Pixels [B, 3, H, W] in [-1, 1] <-> latents [B, C, H', W'] of about unit variance."""

    latent_shape: tuple[int, int, int]

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the mode of the latent distribution."""

    def decode(self, latents: Tensor) -> Tensor:
        """Return pixels, not clipped."""


class Scorer(Protocol):
    """Says how good generated images are for what was asked."""

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Return a finite score of each of N images, [N]; higher is better."""
