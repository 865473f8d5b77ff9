"""Interfaces between folders: dataclasses of tensors, and protocols of models, judges and tools.

Shape legend of the repository: B batch, T prompt tokens, L answer tokens, V visual tokens,
K reasoning tokens, D backbone width, E conditioning width, C H W latent channels/height/width,
G samples a prompt, Y classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from emosym.affect.scales import Affect
from emosym.diffusion.guidance import Scale
from emosym.diffusion.processes import Process
from emosym.records import ImageRequest, Question, Sample, Understanding


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
        pixels, grid = self.pixel_values, self.image_grid
        return Prompts(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            None if pixels is None else pixels.to(device),
            None if grid is None else grid.to(device),
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
    """Inputs of the language model: a whole sequence, or the tokens that follow a cache."""

    embeddings: Tensor
    """[B, T, D]"""
    mask: Tensor
    """[B, T]; with a cache, the mask of the cached tokens comes first."""
    positions: Tensor
    """[3, B, T]: temporal, height and width positions."""
    deepstack: Tensor | None = None
    """[N, B, P, D], P <= T: added to the first P hidden states after layers 1..N; zero outside of
    image tokens. Ref: DeepStack (arXiv 2406.04334), in Qwen3-VL."""

    def truncate(self, length: int) -> InputEmbeddings:
        """Return the first `length` tokens; they must include all image tokens."""
        return InputEmbeddings(
            self.embeddings[:, :length],
            self.mask[:, :length],
            self.positions[:, :, :length],
            self.deepstack,
        )

    def append(self, embeddings: Tensor, mask: Tensor) -> InputEmbeddings:
        """Append text [B, L, D]; its positions continue from the largest one of each row."""
        steps = torch.arange(1, embeddings.shape[1] + 1, device=mask.device)
        positions = (self.positions.amax((0, 2))[:, None] + steps).expand(3, -1, -1)
        return InputEmbeddings(
            torch.cat([self.embeddings, embeddings], 1),
            torch.cat([self.mask, mask], 1),
            torch.cat([self.positions, positions], 2),
            self.deepstack,
        )

    def repeat_interleave(self, times: int) -> InputEmbeddings:
        """Return every row `times` times, copies next to each other."""
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
    """Turns text and images into the tensors of one backbone, and token ids into text."""

    @property
    def end_of_turn(self) -> int:
        """Id of the token that ends a turn."""
        ...

    @property
    def forbidden_ids(self) -> Sequence[int]:
        """Ids that may never be sampled in an answer.

        They are vision, control and placeholder tokens, and rows of the embedding without a token.
        """
        ...

    def check(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text that holds a control token."""

    def prompts(
        self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]] | None
    ) -> Prompts:
        """Tokenise one user turn for each text, preceded by its own images (any number)."""
        ...

    def see(self, texts: Sequence[str], pixels: Tensor) -> Prompts:
        """Tokenise turns with one image each, [B, 3, H, W] in [-1, 1]; it is differentiable."""
        ...

    def answers(self, texts: Sequence[str]) -> Answers:
        """Tokenise assistant texts; each ends with `end_of_turn`."""
        ...

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """Return the text of each row [B, L], without the end of turn."""
        ...


class Backbone(nn.Module, ABC):
    """An image-text-to-text model."""

    width: int
    """D"""

    @property
    @abstractmethod
    def shares_prefix(self) -> bool:
        """Whether several answers can attend to one cached prompt, with gradients."""

    @property
    @abstractmethod
    def token_embeddings(self) -> Tensor:
        """The embeddings of the vocabulary, [vocabulary, D]."""

    @abstractmethod
    def checkpoint_gradients(self) -> None:
        """Recompute layers in the backward pass instead of keeping their activations."""

    @abstractmethod
    def embed_prompts(self, prompts: Prompts) -> InputEmbeddings:
        """Embed tokens and images."""

    @abstractmethod
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed ids [B, L] -> [B, L, D]."""

    @abstractmethod
    def read(self, tokens: InputEmbeddings, cache: Any | None = None) -> Tensor:
        """Run the language model on T tokens -> last hidden states [B, T, D]."""

    @abstractmethod
    def read_layers(self, tokens: InputEmbeddings) -> list[Tensor]:
        """Run the language model -> hidden states [B, T, D] of each layer; the last is `read`'s."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Project hidden states [..., D] to the vocabulary."""

    @abstractmethod
    def new_cache(self) -> Any:
        """Return an empty key-value cache for `read`.

        It has `batch_repeat_interleave(G)`.
        """

    @abstractmethod
    def branch(self, cache: Any, mask: Tensor, group: int) -> Any:
        """Return the decoding state of `group` answers to each prompt [B, T] of a cache.

        It carries no gradient. Its `keep(rows)` drops all other answers.
        """

    @abstractmethod
    def read_one(self, embedded: Tensor, positions: Tensor, branch: Any) -> Tensor:
        """Read one more token of each answer [N, D] at positions [3, N] -> last states [N, D]."""


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Output of the decoder's own text encoder."""

    tokens: Tensor
    """[B, T, E]; zero at padding, unless the decoder was trained to read it."""
    pooled: Tensor
    """[B, P]; P is 0 for a decoder without such an input."""

    def expand(self, count: int) -> TextFeatures:
        """Return the features of one prompt (B = 1) for `count` images, without copies."""
        return TextFeatures(self.tokens.expand(count, -1, -1), self.pooled.expand(count, -1))


class Denoiser(nn.Module, ABC):
    """A conditional denoiser with its text encoder."""

    text_encoder: nn.Module
    process: Process
    """The diffusion process whose quantities `predict` returns."""
    token_width: int
    """E of `TextFeatures.tokens`."""
    pooled_width: int
    """P of `TextFeatures.pooled`."""
    knowledge_width: int
    """Width of `pool_text`'s vectors."""
    prompt_window: int
    """Most tokens of a prompt."""
    truncate_prompts: bool = False
    """Whether longer prompts are cut to it; otherwise they are refused."""

    @abstractmethod
    def tokenize(self, prompts: Sequence[str]) -> Any:
        """Return the inputs of `encode_text`.

        Raises:
            UserError: a prompt has more than `prompt_window` tokens, unless `truncate_prompts`.
        """

    @abstractmethod
    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each prompt."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encode prompts; the empty string is the unconditional prompt."""

    @abstractmethod
    def pool_text(self, texts: Sequence[str]) -> Tensor:
        """Return one vector for each knowledge text, which may be longer than prompts."""

    @abstractmethod
    def checkpoint_gradients(self) -> None:
        """Recompute layers in the backward pass instead of keeping their activations."""

    @abstractmethod
    def predict(self, latents: Tensor, time: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """Return the model output of `process` at times [B]: [B, C, H, W] -> same."""


class Autoencoder(nn.Module, ABC):
    """Pixels [B, 3, H, W] in [-1, 1] <-> latents [B, C, H', W'] of about unit variance."""

    latent_shape: tuple[int, int, int]

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Return the mode of the latent distribution."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Return pixels, not clipped."""


class Scorer(Protocol):
    """Scores generated images against their requests."""

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Return a score of each of N images, [N]; higher is better.

        NaN means that the image could not be judged: it has no score, and none is invented. All
        other scores are finite. A judge that cannot judge at all raises UserError.
        """
        ...


class ImageGenerator(Protocol):
    """Generates images for requests."""

    def generate(
        self,
        requests: Sequence[ImageRequest],
        *,
        seed: int | Sequence[int],
        num_inference_steps: int | None = None,
        guidance_scale: Scale | None = None,
    ) -> list[Image.Image]:
        """Return one image per request, in order; the same call gives the same images.

        Image i starts from the noise of seed + i, or of its own seed where a list is given. None
        means the generator's own default.
        """
        ...


class ImageUnderstander(Protocol):
    """Predicts the emotion that images evoke."""

    def understand(
        self, images: Sequence[Image.Image | Path], *, answer: bool = True
    ) -> list[Understanding]:
        """Return one `Understanding` per image, in order; without a text where not `answer`."""
        ...


class QuestionAnswerer(Protocol):
    """Answers questions about images in text."""

    def answer(self, questions: Sequence[Question], *, max_tokens: int | None = None) -> list[str]:
        """Return one text per question, in order; None means the model's own length limit."""
        ...


class EmotionModel(ImageGenerator, ImageUnderstander, QuestionAnswerer, Protocol):
    """A model that understands and generates emotion, e.g. `EmoSymPipeline`."""


class Recogniser(Protocol):
    """Recognises emotions and embeds images, e.g. `EmoSymPipeline` or a run's frozen reference.

    Evaluation uses the same one before and after training.
    """

    def recognise(self, images: Sequence[Image.Image]) -> tuple[list[Understanding], NDArray]:
        """Return one `Understanding` per image, in order, and the embeddings [N, D]."""
        ...


Oracle = Callable[[Image.Image, str], Affect]
"""Image and its subject -> the true affect, recomputed from the pixels. Never a reward."""

AnswerParser = Callable[[str, Sample], object | None]
"""An answer's text and its sample -> the parsed answer, or None where it does not parse."""
