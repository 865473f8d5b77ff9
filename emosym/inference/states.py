"""States that condition images, [N, 1 + K, D]: of requests, of images, of the emotion space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.inference.recognition import questions
from emosym.models.emotion_space import FIT_COMMAND, blend_shares
from emosym.models.imagine import imagine_prompt
from emosym.models.model import EmoSym
from emosym.models.steering import SteeredState, steer
from emosym.records import ImageRequest


def check_states(model: EmoSym, states: Tensor, count: int) -> Tensor:
    """Return the states of `count` images, as the model takes them.

    Raises `UserError` for another shape, and for numbers that are not finite.
    """
    shape = (count, 1 + model.config.reasoning_tokens, model.understander.backbone.width)
    wrong = ""
    if not isinstance(states, Tensor):
        wrong = type(states).__name__
    elif states.shape != shape:
        wrong = f"a tensor {list(states.shape)}"
    elif not states.isfinite().all():
        wrong = "numbers that are not finite"
    if wrong:
        raise UserError(
            "these are no states of the model",
            got=wrong,
            expected=f"a tensor {list(shape)}: images, 1 + reasoning tokens, width",
        )
    return states.to(model.understander.reasoner.emotion)


def request_states(model: EmoSym, requests: Sequence[ImageRequest]) -> Tensor:
    """Read the instructions that requests make."""
    texts = [imagine_prompt(request) for request in requests]
    return model.read(model.processor.prompts(texts, None).to(model.device)).states


def sample_states(
    model: EmoSym, emotion: str | Mapping[str, float], seeds: Sequence[int]
) -> Tensor:
    """Sample a state of the emotion space for each seed.

    Raises `UserError` for a model without one, and as `EmotionSpace.blend`.
    """
    if model.space is None:
        raise UserError(
            "the model has no emotion space", fix=f"make one of labelled images: {FIT_COMMAND}"
        )
    states = model.space.sample(_weights(emotion), seeds)
    return states.to(model.understander.reasoner.emotion)


def sampled_requests(
    model: EmoSym, states: Tensor, emotion: str | Mapping[str, float], prompt: str
) -> list[ImageRequest]:
    """Return the request that each sampled state of an emotion, or of a blend, stands for."""
    affect = model.understander.affect_head(states[:, 0])
    blended = [name for name, share in blend_shares(_weights(emotion)).items() if share]
    label = blended[0] if len(blended) == 1 else None
    return [
        ImageRequest(prompt=prompt, emotion=label, affect=Affect(*point))
        for point in affect.float().tolist()
    ]


def steer_images(
    model: EmoSym,
    images: Sequence[Image.Image],
    affects: Sequence[Affect],
    aim: Affect,
    batch_size: int,
) -> SteeredState:
    """Steer the states that are read from images; the model's emotion space, if any, takes part.

    The affect of an emotion is what the model predicts from its mean state. Raises as `steer`.
    """
    read = [
        model.read(questions(model, images[start : start + batch_size])).states
        for start in range(0, len(images), batch_size)
    ]
    emotions: dict[str, tuple[Tensor, Affect]] = {}
    if model.space is not None:
        for name, gaussian in model.space.gaussians.items():
            mean = gaussian.mean.to(model.understander.reasoner.emotion)
            (point,) = model.understander.affect_head(mean[:1]).tolist()
            emotions[name] = mean, Affect(*point)
    states = torch.cat(read) if read else torch.empty(0)
    return steer(states, affects, aim, emotions)


def _weights(emotion: str | Mapping[str, float]) -> Mapping[str, float]:
    """Return a blend; a label alone has all the weight."""
    return {emotion: 1.0} if isinstance(emotion, str) else emotion
