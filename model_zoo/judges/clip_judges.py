"""Judges that compare images in the space of CLIP. Implement `emosym.interfaces.Scorer`.

Texts are the neutral prompts of requests: what an image should show, not what it should evoke.
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
from model_zoo.pretrained import reading
from model_zoo.text.clip import Clip

QUALITY = ("Good photo.", "Bad photo.")
"""The antonyms of CLIP-IQA."""
PICKSCORE_UNIT = 26
"""About the score of a good image: it brings PickScore near [0, 1]. Ref: Flow-GRPO."""
AESTHETIC_UNIT = 10
"""The best aesthetic rating."""


class PickScore:
    """Which images people prefer for a prompt: logit scale · cosine / 26, about 0.8.

    Ref: Pick-a-Pic (arXiv 2305.01569); / 26 as in Flow-GRPO (arXiv 2505.05470).
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Score images [N]; raise UserError for a prompt that is empty or too long."""
        cosine = _cosines(self.clip, images, requests)
        return _array(self.clip.scale * cosine / PICKSCORE_UNIT)


class ClipScore:
    """How well an image shows its prompt: the cosine, 0 where it is negative, in [0, 1].

    Tables often give it × 100, EmotiCrafter's for one; the first paper × 2.5.

    Ref: CLIPScore (arXiv 2104.08718).
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Score images [N]; raise UserError for a prompt that is empty or too long."""
        return _array(_cosines(self.clip, images, requests).clamp(0, 1))


class Aesthetic:
    """How beautiful an image is: a tenth of its rating, which people give from 1 to 10.

    Ref: LAION aesthetic predictor 1, a linear layer on the unit vector of an image (CLIP ViT-L/14).
    """

    def __init__(self, clip: Clip, weight: Tensor, bias: Tensor) -> None:
        """Take the layer, [1, P] and [1]."""
        self.clip = clip
        self.weight, self.bias = (part.to(clip.model.device).float() for part in (weight, bias))

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Score images [N], whatever was asked for."""
        rating = self.clip.of_images(images) @ self.weight[0] + self.bias
        return _array(rating / AESTHETIC_UNIT)


class ClipIqa:
    """The quality of an image: the share of "Good photo." against "Bad photo.", in [0, 1].

    With CLIP as it is: images are read at its own size, with its embeddings of positions, which the
    paper leaves out to read any size.

    Ref: CLIP-IQA (arXiv 2207.12396) eq. 2.
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.poles = clip.of_texts(QUALITY)

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> np.ndarray:
        """Score images [N], whatever was asked for."""
        logits = self.clip.scale * self.clip.of_images(images) @ self.poles.T
        return _array(logits.softmax(-1)[:, 0])


def load_layer(file: str | Path, width: int) -> tuple[Tensor, Tensor]:
    """Read the linear layer of `Aesthetic` from a safetensors file, or one of torch.save.

    Raises:
        UserError: no such file, one that is damaged, or another layer than [1, width] and [1].
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"no file {file}", expected="the weights of an aesthetic predictor")
    with reading(file):
        if file.suffix == ".safetensors":
            state = safetensors.torch.load_file(file)
        else:
            state = _unpickled(file)
    sizes = {name: list(tensor.shape) for name, tensor in state.items()}
    if sizes != {"weight": [1, width], "bias": [1]}:
        raise UserError(
            f"{file} is not the linear layer that goes with this CLIP",
            got=sizes,
            expected=f"weight [1, {width}] and bias [1]",
            fix="take the predictor that was trained on this CLIP",
        )
    return state["weight"], state["bias"]


def _unpickled(file: Path) -> dict[str, Tensor]:
    """Read what torch.save wrote, tensors alone: a pickle of more could run code."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError) as error:  # it advises to load it all the same
        raise ValueError("it is damaged, or holds more than tensors") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError("it holds more than named tensors")
    return state


def _cosines(clip: Clip, images: Sequence[Image.Image], requests: Sequence[ImageRequest]) -> Tensor:
    """Return the cosine of each image and its prompt, [N]."""
    for place, request in enumerate(requests):
        if not request.prompt.strip():
            raise UserError(
                f"request {place} has no prompt, which its judge compares the image with",
                fix="ask for content, or take the judge out of the configuration",
            )
    texts = list(dict.fromkeys(request.prompt for request in requests))  # a group shares its own
    rows = [texts.index(request.prompt) for request in requests]
    return (clip.of_images(images) * clip.of_texts(texts)[rows]).sum(-1)


def _array(scores: Tensor) -> np.ndarray:
    return scores.double().cpu().numpy()
