"""Judges on CLIP embeddings: PickScore, CLIPScore, aesthetics, CLIP-IQA.

They implement `emosym.interfaces.Scorer`. Their text is the neutral prompt of a request: what an
image should show, not what it should evoke.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from emosym.errors import UserError
from emosym.records import ImageRequest
from model_zoo.pretrained import FIX, user_errors
from model_zoo.text.clip import ClipEmbedder

QUALITY = ("Good photo.", "Bad photo.")
"""The antonym prompts of CLIP-IQA."""
PICKSCORE_UNIT = 26
"""Divisor that brings PickScore near [0, 1]. Ref: Flow-GRPO, arXiv 2505.05470."""
AESTHETIC_UNIT = 10
"""The highest aesthetic rating."""


class PickScore:
    """Human preference for an image given its prompt: logit scale · cosine / 26, about 0.8.

    Ref: Pick-a-Pic, arXiv 2305.01569; division by 26 as in Flow-GRPO, arXiv 2505.05470.
    """

    def __init__(self, clip: ClipEmbedder) -> None:
        self.clip = clip

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Return scores [N]; raise UserError for a prompt that is empty."""
        cosine = _cosines(self.clip, images, requests)
        return _array(self.clip.scale * cosine / PICKSCORE_UNIT)


class ClipScore:
    """Agreement of an image with its prompt: max(cosine, 0), in [0, 1].

    Published tables often multiply it by 100 (EmotiCrafter), the original paper by 2.5.

    Ref: CLIPScore, arXiv 2104.08718.
    """

    def __init__(self, clip: ClipEmbedder) -> None:
        self.clip = clip

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Return scores [N]; raise UserError for a prompt that is empty."""
        return _array(_cosines(self.clip, images, requests).clamp(0, 1))


class Aesthetic:
    """Predicted aesthetic rating (1 to 10), divided by 10.

    Ref: LAION aesthetic predictor 1, a linear layer on CLIP's unit image vectors (ViT-L/14).

    Args:
        clip: the CLIP on which the layer was trained.
        weight: [1, P].
        bias: [1].
    """

    def __init__(self, clip: ClipEmbedder, weight: Tensor, bias: Tensor) -> None:
        self.clip = clip
        self.weight = weight.to(clip.model.device).float()
        self.bias = bias.to(clip.model.device).float()

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Return scores [N]; requests are ignored."""
        rating = self.clip.embed_images(images) @ self.weight[0] + self.bias
        return _array(rating / AESTHETIC_UNIT)


class ClipIqa:
    """Image quality: softmax probability of "Good photo." against "Bad photo.", in [0, 1].

    Unlike the paper, which removes CLIP's position embeddings to accept any size, images are
    resized to CLIP's input size.

    Ref: CLIP-IQA, arXiv 2207.12396, eq. 2.
    """

    def __init__(self, clip: ClipEmbedder) -> None:
        self.clip = clip
        self.antonyms = clip.embed_texts(QUALITY)

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Return scores [N]; requests are ignored."""
        logits = self.clip.scale * self.clip.embed_images(images) @ self.antonyms.T
        return _array(logits.softmax(-1)[:, 0])


def load_layer(file: str | Path, width: int) -> tuple[Tensor, Tensor]:
    """Load the linear layer of `Aesthetic` from a safetensors file or a file of torch.save.

    Args:
        file: with tensors `weight` and `bias`.
        width: P, the width of CLIP's image vectors.

    Raises:
        UserError: no such file, a damaged file, or other shapes than [1, P] and [1].
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"no file {file}", expected="the weights of an aesthetic predictor")
    with user_errors(file):
        if file.suffix == ".safetensors":
            state = safetensors.torch.load_file(file)
        else:
            state = _unpickled(file)
    sizes = {name: list(tensor.shape) for name, tensor in state.items()}
    if sizes != {"weight": [1, width], "bias": [1]}:
        raise UserError(
            f"{file} is not a linear layer for this CLIP",
            got=sizes,
            expected=f"weight [1, {width}] and bias [1]",
            fix="use the predictor that was trained on this CLIP",
        )
    return state["weight"], state["bias"]


def _unpickled(file: Path) -> dict[str, Tensor]:
    """Load a file of torch.save that holds only tensors; other pickles could run code."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError) as error:  # torch's text advises weights_only=False
        raise ValueError("it is damaged, or contains more than tensors") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError("it contains more than named tensors")
    return state


def _cosines(
    clip: ClipEmbedder, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
) -> Tensor:
    """Return the cosine between each image and its prompt, [N]."""
    for index, request in enumerate(requests):
        if not request.prompt.strip():
            raise UserError(
                f"request {index} has no prompt, but its judge compares images with prompts",
                fix="give it a prompt, or remove the judge from the configuration",
            )
    texts = list(dict.fromkeys(request.prompt for request in requests))  # encode each only once
    rows = [texts.index(request.prompt) for request in requests]
    return (clip.embed_images(images) * clip.embed_texts(texts)[rows]).sum(-1)


def _array(scores: Tensor) -> np.ndarray:
    """Return scores [N]; raise UserError for one that is not finite."""
    if not scores.isfinite().all():
        raise UserError("a CLIP judge gives a score that is not finite", fix=FIX)
    return scores.double().cpu().numpy()
