"""The model in use: images to emotions, emotions to images."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from emosym.affect.scales import PUBLIC
from emosym.affect.taxonomies import NORMS, mikels
from emosym.errors import UserError
from emosym.inference.recognition import questions, recognise, understandings
from emosym.interfaces import Prompts
from emosym.models.emotion_space import FIT_COMMAND, blend_shares
from emosym.models.model import MAX_STEPS, EmoSym, check_range
from emosym.models.understander import UnderstanderOutput
from emosym.randomness import Draws
from emosym.records import ImageRequest, Question, Understanding
from emosym.rl.rollout import Rollout, sample_answers
from emosym.tasks import prompts

LOADER = "model_zoo.zoo:load"
"""Lazy target of `from_pretrained`: `emosym` itself imports no model library."""

QUIET = "model_zoo.quiet:quiet_libraries"
"""Lazy target that silences what the model libraries say at import; it comes before `LOADER`."""

IMAGES = "data_tools.images:load_image"
"""Lazy target that reads an image file safely."""


ANSWER_TOKENS = 128
"""Longest answer to a question where nothing else is said; it suffices for short reasoning."""


class EmoSymPipeline:
    """Understand and generate with one model. Implements `emosym.interfaces.EmotionModel`."""

    def __init__(self, model: EmoSym, *, batch_size: int = 32, answer_tokens: int = 64) -> None:
        self.model = model
        self.batch_size = batch_size
        self.answer_tokens = answer_tokens

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = "emosym-tiny", *, device: str = "cpu"
    ) -> EmoSymPipeline:
        """Load a member of the zoo by name, or a model folder (a run's `model`).

        Raises:
            UserError: unknown name, not a model folder, weights of another shape.
        """
        _lazy(QUIET)()
        return cls(_lazy(LOADER)(name_or_path).to(device))

    @torch.no_grad()
    def understand(
        self, images: Sequence[Image.Image | Path | str], *, answer: bool = True
    ) -> list[Understanding]:
        """Say what each image evokes; `answer=False` skips the words and is faster."""
        if not answer:
            return self.recognise(images)[0]
        found: list[Understanding] = []
        for batch in _batches(images, self.batch_size):
            asked = questions(self.model, [open_image(image) for image in batch])
            texts, reading = self._say(asked, self.answer_tokens)
            found += understandings(self.model, reading, texts)
        return found

    def recognise(
        self, images: Sequence[Image.Image | Path | str]
    ) -> tuple[list[Understanding], np.ndarray]:
        """Understand images without words and return their embeddings too, in one reading.

        An embedding is `h_emo`, float32 [N, D]: what the memory bank compares.
        """
        return recognise(
            self.model,
            self.model.read,
            (open_image(image) for image in images),
            batch_size=self.batch_size,
        )

    def embed_images(self, images: Sequence[Image.Image | Path | str]) -> np.ndarray:
        """Return what the memory bank compares images by: `h_emo`, float32 [N, D]."""
        return self.recognise(images)[1]

    @torch.no_grad()
    def answer(
        self,
        questions: Sequence[Question],
        *,
        max_tokens: int | None = None,
        batch_size: int | None = None,
    ) -> list[str]:
        """Answer each question in words, greedily: the likeliest token at every place.

        The answers do not depend on the batch size; `answers.parse` reads them.

        Args:
            questions: each about one image or a pair; files are read as they are needed.
            max_tokens: longest answer; default: `ANSWER_TOKENS`. EEmo-Logic allows 1024.
            batch_size: questions read together; default: the pipeline's.

        Raises:
            UserError: an image cannot be read, a question holds a control token.
        """
        said: list[str] = []
        for batch in _batches(questions, batch_size or self.batch_size):
            said += self._say(self._pose(batch), max_tokens or ANSWER_TOKENS)[0]
        return said

    def check_prompt(self, prompt: str) -> None:
        """Raise UserError for a prompt with a control token, or longer than the decoder reads."""
        self.model.processor.check([prompt])
        self.model.generator.denoiser.tokenize([prompt])

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[ImageRequest],
        *,
        seed: int | Sequence[int] = 0,
        guidance: float | None = None,
        steps: int | None = None,
    ) -> list[Image.Image]:
        """Draw one image for each request.

        Image i starts from the noise of seed + i, or of its own seed where a list is given.

        Raises:
            UserError: as `complete`, `check_sampling` and `to_image`.
        """
        check_sampling(steps, guidance)
        whole = [complete(request) for request in requests]
        seeds = [seed + i for i in range(len(whole))] if isinstance(seed, int) else list(seed)
        shape = self.model.autoencoder.latent_shape
        images: list[Image.Image] = []
        for batch in _batches(list(zip(whole, seeds, strict=True)), self.batch_size):
            noise = torch.stack([Draws("image", own).normal(*shape) for _, own in batch])
            asked = [request for request, _ in batch]
            images += self.draw(asked, noise, guidance=guidance, steps=steps)
        return images

    @torch.no_grad()
    def draw(
        self,
        requests: Sequence[ImageRequest],
        noise: Tensor,
        *,
        guidance: float | None = None,
        steps: int | None = None,
    ) -> list[Image.Image]:
        """Draw requests in one batch from given noise [B, C, H, W]."""
        device = self.model.device
        reading, affect = self._imagine(requests), wanted_affect(requests).to(device)
        condition = self.model.condition(reading, [r.prompt for r in requests], affect)
        pixels = self.model.generate(
            noise.to(device), condition, num_inference_steps=steps, guidance_scale=guidance
        )
        return [to_image(pixel) for pixel in pixels]

    @torch.no_grad()
    def imagine(
        self,
        emotion: str | Mapping[str, float],
        count: int = 1,
        *,
        prompt: str = "",
        seed: int = 0,
        guidance: float | None = None,
        steps: int | None = None,
    ) -> list[Image.Image]:
        """Draw images from an emotion alone: each from a state of the model's emotion space.

        Image i has the state and the noise of seed + i. With the same seeds, neighbouring blends
        give neighbouring images.

        Args:
            emotion: a Mikels label, or the weights of a blend (`emotion_space.blend_shares`).
            count: images.
            prompt: what the images show; empty leaves it open.
            seed: of the first image.
            guidance: how hard to follow the condition; default: the model's.
            steps: sampling steps; default: the model's.

        Raises:
            UserError: a model without a space, as `EmotionSpace.blend`, `check_sampling`.
        """
        check_sampling(steps, guidance)
        model, shape = self.model, self.model.autoencoder.latent_shape
        images: list[Image.Image] = []
        for own in _batches(range(seed, seed + count), self.batch_size):
            condition = model.condition_on_states(
                self._states(emotion, own), [prompt.strip()] * len(own)
            )
            noise = torch.stack([Draws("image", one).normal(*shape) for one in own])
            noise = noise.to(model.device)
            pixels = model.generate(
                noise, condition, num_inference_steps=steps, guidance_scale=guidance
            )
            images += map(to_image, pixels)
        return images

    @torch.no_grad()
    def wanted(
        self, emotion: str | Mapping[str, float], count: int = 1, *, prompt: str = "", seed: int = 0
    ) -> list[ImageRequest]:
        """Return what each image of `imagine` shall show and evoke; raises as `imagine`.

        Valence and arousal are those of its state; the emotion is named where it is the only one.
        """
        affect = self.model.understander.affect_head(
            self._states(emotion, range(seed, seed + count))[:, 0]
        )
        blended = [n for n, share in blend_shares(_weights(emotion)).items() if share]
        alone = blended[0] if len(blended) == 1 else None
        return [
            ImageRequest(prompt=prompt.strip(), emotion=alone, valence=valence, arousal=arousal)
            for valence, arousal in affect.float().tolist()
        ]

    def _say(self, asked: Prompts, max_tokens: int) -> tuple[list[str], UnderstanderOutput]:
        """Answer prompts greedily; return the words and the prompts' reading."""
        processor = self.model.processor
        rollout = Rollout(
            end_of_turn=processor.end_of_turn,
            forbidden_ids=processor.forbidden_ids,
            max_completion_length=max_tokens,
        )
        reading = sample_answers(self.model.understander, asked, rollout)
        return processor.decode(rollout.answers.ids, rollout.answers.mask), reading

    def _states(self, emotion: str | Mapping[str, float], seeds: Sequence[int]) -> Tensor:
        """Draw a state of the emotion space for each seed, [B, 1 + K, D]."""
        if self.model.space is None:
            raise UserError(
                "the model has no emotion space", fix=f"make one of labelled images: {FIT_COMMAND}"
            )
        states = self.model.space.sample(_weights(emotion), seeds)
        return states.to(self.model.understander.reasoner.emotion)

    def _pose(self, batch: Sequence[Question]) -> Prompts:
        texts = [question.text for question in batch]
        shown = [[open_image(image) for image in question.images] for question in batch]
        return self.model.processor.prompts(texts, shown).to(self.model.device)

    def _imagine(self, requests: Sequence[ImageRequest]) -> UnderstanderOutput:
        asked = self.model.processor.prompts([prompts.imagine(r) for r in requests], None)
        return self.model.read(asked.to(self.model.device))


def complete(request: ImageRequest) -> ImageRequest:
    """Check a request and fill in the norms of its emotion when no affect is given.

    Raises:
        UserError: nothing asked for, half a V-A pair, an unknown emotion, V/A off the scale.
    """
    half = (request.valence is None) != (request.arousal is None)
    if half:
        raise UserError("valence and arousal go together", fix="give both, or neither")
    prompt = request.prompt.strip()
    if not prompt and request.emotion is None and request.valence is None:
        raise UserError(
            "nothing was asked for", expected="a prompt, an emotion, or valence and arousal"
        )
    emotion = mikels(request.emotion) if request.emotion is not None else None
    valence, arousal = request.valence, request.arousal
    if valence is not None and arousal is not None:
        PUBLIC.check(valence, "valence")
        PUBLIC.check(arousal, "arousal")
    elif emotion is not None:
        norm = NORMS[emotion].to(PUBLIC)
        valence, arousal = norm.valence, norm.arousal
    return ImageRequest(prompt=prompt, emotion=emotion, valence=valence, arousal=arousal)


def check_sampling(steps: int | None, guidance: float | None) -> None:
    """Raise UserError for steps outside [1, `MAX_STEPS`] or a guidance that is no scale."""
    if steps is not None:
        check_range("the number of sampling steps", steps, 1, MAX_STEPS)
    if guidance is not None and not (math.isfinite(guidance) and guidance >= 0):
        raise UserError("the guidance scale", got=guidance, expected="a finite number, 0 or more")


def _weights(emotion: str | Mapping[str, float]) -> Mapping[str, float]:
    return {emotion: 1.0} if isinstance(emotion, str) else emotion


def wanted_affect(requests: Sequence[ImageRequest]) -> Tensor:
    """Return [B, 2] on `affect.PUBLIC`, NaN where no affect is asked for."""
    rows = [
        (math.nan, math.nan) if r.valence is None or r.arousal is None else (r.valence, r.arousal)
        for r in requests
    ]
    return torch.tensor(rows)


def to_image(pixels: Tensor) -> Image.Image:
    """Turn pixels [3, H, W] in [-1, 1] into an 8-bit image.

    Raises:
        UserError: they are not finite.
    """
    if not pixels.isfinite().all():
        raise UserError(
            "the model draws numbers that are not finite",
            fix="lower the guidance; if that does not help its weights are damaged",
        )
    levels = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())


def open_image(image: Image.Image | Path | str) -> Image.Image:
    """Return an image, or the file of one, as RGB; raise UserError for a file that is none."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    return _lazy(IMAGES)(Path(image))


def _batches(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _lazy(target: str):
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)
