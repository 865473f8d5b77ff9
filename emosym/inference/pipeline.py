"""`EmoSymPipeline`: from images to emotions, and from emotions to images, with one model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tqdm.auto
from PIL import Image
from torch import Tensor

from emosym.affect.scales import Affect
from emosym.diffusion.guidance import Scale
from emosym.errors import UserError
from emosym.inference.arguments import named_arguments
from emosym.inference.inputs import (
    Images,
    as_images,
    as_questions,
    as_requests,
    as_seeds,
    check_count,
    check_sampling,
    wanted_affect,
)
from emosym.inference.lazy import LOAD, QUIET, SAVE, imported
from emosym.inference.pixels import to_image
from emosym.inference.placement import parse_dtype, usable_device
from emosym.inference.recognition import generate_text, recognise, understandings
from emosym.inference.recognition import questions as emotion_prompts
from emosym.inference.states import (
    check_states,
    request_states,
    sample_states,
    sampled_requests,
    steer_images,
)
from emosym.interfaces import Prompts
from emosym.models.generator import OnStep
from emosym.models.model import EmoSym
from emosym.models.steering import SteeredState
from emosym.pictures.loading import load_image
from emosym.randomness import Draws
from emosym.records import ImageRequest, Question, Understanding

ANSWER_TOKENS = 128
"""Default length limit of an answer to a question, in tokens; long enough for short reasoning."""


StepCallback = Callable[["EmoSymPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]]
"""`callback(pipeline, step, time, {"latents": latents})`, as in diffusers; what it returns under
`latents` is used."""


class EmoSymPipeline:
    """Understand and generate images with one model.

    One item gives one result, a list gives a list.

    >>> pipe = EmoSymPipeline.from_pretrained("emosym-tiny")
    >>> boat = pipe("a boat", emotion="awe", seed=7, num_inference_steps=4)
    >>> boat.size
    (64, 64)
    >>> seen = pipe.understand(boat)
    >>> sorted(seen.probabilities)[:3]
    ['amusement', 'anger', 'awe']
    >>> len(pipe.understand([boat, boat], answer=False))
    2

    Implements `emosym.interfaces.EmotionModel`.
    """

    def __init__(self, model: EmoSym, *, batch_size: int = 32, answer_tokens: int = 64) -> None:
        self.model = model
        self.batch_size = batch_size
        self.answer_tokens = answer_tokens
        self._progress_bar: dict[str, Any] = {"disable": True}

    def __repr__(self) -> str:
        config, count = self.model.config, sum(p.numel() for p in self.model.parameters())
        return (
            f"EmoSymPipeline({count / 1e6:.1f}M parameters, {config.reasoning_tokens} reasoning"
            f" tokens, {config.image_size} px, {self.dtype}, {self.device})"
        )

    def set_progress_bar_config(self, **options: Any) -> None:
        """Set options of the progress bar of `generate`, as in diffusers: those of `tqdm`.

        It is off by default: `pipe.set_progress_bar_config(disable=False)` shows it.
        """
        self._progress_bar = options

    @classmethod
    @named_arguments
    def from_pretrained(
        cls,
        name_or_path: str | Path = "emosym-tiny",
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        *,
        torch_dtype: torch.dtype | str | None = None,
    ) -> EmoSymPipeline:
        """Load a model of the model zoo by name, or a model folder (`model` in a run's folder).

        Args:
            name_or_path: name or folder.
            dtype: type of the weights, or its name; default: float32.
            device: where the model goes; default: the GPU if there is one.
            torch_dtype: another name of `dtype`, as in transformers.

        Raises:
            UserError: unknown name, not a model folder, weights that do not fit, a device that
                cannot be used, an unknown dtype, or `dtype` and `torch_dtype` that differ.
        """
        if None not in (dtype, torch_dtype) and parse_dtype(dtype) != parse_dtype(torch_dtype):
            raise UserError(
                "dtype and torch_dtype are the same option",
                got=f"{dtype} and {torch_dtype}",
                fix="give one of them",
            )
        weights_dtype = parse_dtype(dtype if torch_dtype is None else torch_dtype)
        weights_device = usable_device(device)
        imported(QUIET)()
        return cls(imported(LOAD)(name_or_path, weights_dtype).to(weights_device))

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write a model folder that `from_pretrained` loads; an older model there is replaced.

        Raises:
            UserError: the folder holds something else than a model, or cannot be written.
        """
        imported(QUIET)()
        return imported(SAVE)(self.model, folder)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the model's weights."""
        return self.model.understander.reasoner.emotion.dtype

    def to(self, *args: Any, **kwargs: Any) -> EmoSymPipeline:
        """Move or cast the model, with the arguments of `torch.nn.Module.to`; return the pipeline.

        `pipeline.to("cuda")`, `pipeline.to(torch.bfloat16)`, `pipeline.to("cuda", torch.float16)`.

        Raises:
            UserError: a device that cannot be used, a dtype of no floating point.
        """
        for value in (*args[:1], kwargs.get("device")):
            if isinstance(value, (str, torch.device)):
                usable_device(value)
        try:
            self.model.to(*args, **kwargs)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise UserError(
                "the model cannot be moved or cast",
                got=str(error).partition("\n")[0],
                expected="a device, a dtype of floating point, or both",
            ) from error
        return self

    @named_arguments
    @torch.no_grad()
    def understand(self, images: Images, *, answer: bool = True) -> Any:
        """Predict the emotion that an image evokes, or each of several.

        Args:
            images: a path, bytes, a PIL image, an array or a tensor; or several, see `as_images`.
            answer: also answer in words; without it is faster.

        Returns:
            One `Understanding` for one image, a list for several.

        Raises:
            UserError: not an image, a file that cannot be read.
        """
        items, one = as_images(images)
        results: list[Understanding] = []
        for batch in _batches(items, self.batch_size):
            loaded = [load_image(image) for image in batch]
            inputs = emotion_prompts(self.model, loaded)
            if answer:
                texts, output = generate_text(self.model, inputs, self.answer_tokens)
            else:
                texts, output = [""] * len(loaded), self.model.read(inputs)
            results += understandings(self.model, output, texts, loaded)
        return results[0] if one else results

    def recognise(self, images: Images) -> tuple[list[Understanding], np.ndarray]:
        """Return predictions without text, and the images' embeddings, from one forward pass.

        Both have N items, also for N = 1. An embedding is `h_emo`, float32 [N, D]. The memory bank
        compares images by it.
        """
        return recognise(
            self.model,
            self.model.read,
            (load_image(image) for image in as_images(images)[0]),
            batch_size=self.batch_size,
        )

    def embed_images(self, images: Images) -> np.ndarray:
        """Return the images' embeddings `h_emo`, float32 [N, D]."""
        return self.recognise(images)[1]

    @named_arguments
    @torch.no_grad()
    def answer(
        self,
        questions: Question | Sequence[Question],
        *,
        max_tokens: int | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """Answer a question in text, or each of several, by greedy decoding.

        The answers do not depend on the batch size. `emosym.tasks.answers.parse` parses them.

        Args:
            questions: each with its images, as files or in memory; files are read batch by batch.
            max_tokens: length limit of an answer; default: `ANSWER_TOKENS`. EEmo-Logic uses 1024.
            batch_size: questions in a batch; default: the pipeline's.

        Raises:
            UserError: an image cannot be read, a question holds a control token.
        """
        items, one = as_questions(questions)
        texts: list[str] = []
        limit = max_tokens or ANSWER_TOKENS
        for batch in _batches(items, batch_size or self.batch_size):
            texts += generate_text(self.model, self._tokenize(batch), limit)[0]
        return texts[0] if one else texts

    def check_prompt(self, prompt: str) -> None:
        """Raise UserError for a prompt with a control token, or too long for the text encoder."""
        self.model.processor.check([prompt])
        self.model.generator.denoiser.tokenize([prompt])

    def __call__(self, prompt: Any = "", **options: Any) -> Any:
        """Generate images: `pipe("a boat", emotion="awe")`, see `generate`."""
        return self.generate(prompt, **options)

    @named_arguments
    @torch.no_grad()
    def generate(
        self,
        requests: str | ImageRequest | Sequence[str | ImageRequest] = "",
        *,
        emotion: str | Sequence[str | None] | None = None,
        valence: float | Sequence[float | None] | None = None,
        arousal: float | Sequence[float | None] | None = None,
        seed: int | Sequence[int] = 0,
        num_inference_steps: int | None = None,
        guidance_scale: Scale | None = None,
        num_images_per_prompt: int = 1,
        states: Tensor | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> Any:
        """Generate images for a request, or for each of several.

        Args:
            requests: what the images show and evoke: a prompt, an `ImageRequest`, or a list.
            emotion: a Mikels label that the images evoke; a list has one for each prompt.
            valence: of the images, in [-3, 3]; with `arousal`; a list has one for each prompt.
            arousal: of the images, in [-3, 3]; with `valence`; a list has one for each prompt.
            seed: image i starts from the noise of seed + i; a list gives each image its own seed.
            num_inference_steps: sampling steps; default: the model's.
            guidance_scale: weight of classifier-free guidance; default: the model's. A mapping
                has one for each of `diffusion.guidance.SOURCES`: {"text": 2, "affect": 3}.
            num_images_per_prompt: images of each request, next to each other in the result.
            states: [images, 1 + K, D], in place of those read from the requests; see `steer`.
            callback_on_step_end: called after each sampling step of each batch.

        Returns:
            One PIL image for one request, or a list for several requests or images.

        Raises:
            UserError: as `as_requests`, `as_seeds`, `check_sampling`, `check_states`, `to_image`.
        """
        check_sampling(num_inference_steps, guidance_scale)
        check_count("num_images_per_prompt", num_images_per_prompt)
        completed, one = as_requests(requests, emotion, valence, arousal)
        repeated = [request for request in completed for _ in range(num_images_per_prompt)]
        seeds = as_seeds(seed, len(repeated))
        if states is not None:
            states = check_states(self.model, states, len(repeated))
        batches = list(_batches(range(len(repeated)), self.batch_size))
        steps = len(batches) * (num_inference_steps or self.model.config.steps)
        images: list[Image.Image] = []
        with tqdm.auto.tqdm(total=steps, **self._progress_bar) as bar:

            def on_step(step: int, time: Tensor, latents: Tensor) -> Tensor:
                bar.update()
                if callback_on_step_end is None:
                    return latents
                changed = callback_on_step_end(self, step, time, {"latents": latents})
                return (changed or {}).get("latents", latents)

            for batch in batches:
                images += self.draw(
                    [repeated[i] for i in batch],
                    self._noise([seeds[i] for i in batch]),
                    states=None if states is None else states[list(batch)],
                    num_inference_steps=num_inference_steps,
                    guidance_scale=guidance_scale,
                    on_step=on_step,
                )
        return images[0] if one and num_images_per_prompt == 1 else images

    @torch.no_grad()
    def draw(
        self,
        requests: Sequence[ImageRequest],
        noise: Tensor,
        *,
        states: Tensor | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: Scale | None = None,
        on_step: OnStep | None = None,
    ) -> list[Image.Image]:
        """Generate one image for each request in one batch, from given noise [B, C, H, W].

        `states` [B, 1 + K, D] take the place of those read from the requests.
        """
        if states is None:
            states = request_states(self.model, requests)
        else:
            states = check_states(self.model, states, len(requests))
        condition = self.model.condition_on_states(
            states,
            [request.prompt for request in requests],
            wanted_affect(requests).to(self.device),
        )
        pixels = self.model.generate(
            noise.to(self.device),
            condition,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            on_step=on_step,
        )
        return [to_image(image) for image in pixels]

    @named_arguments
    @torch.no_grad()
    def imagine(
        self,
        emotion: str | Mapping[str, float],
        num_images_per_prompt: int = 1,
        *,
        prompt: str = "",
        seed: int = 0,
        num_inference_steps: int | None = None,
        guidance_scale: Scale | None = None,
    ) -> list[Image.Image]:
        """Generate images of an emotion, each from a state sampled from the model's emotion space.

        Image i has the state and the noise of seed + i. With the same seeds, similar blends give
        similar images.

        Args:
            emotion: a Mikels label, or a blend as emotion -> weight: 0 or more, of any sum, since
                weights are divided by their sum (`emotion_space.blend_shares`).
            num_images_per_prompt: number of images.
            prompt: what the images show; empty leaves it open.
            seed: seed of the first image.
            num_inference_steps: sampling steps; default: the model's.
            guidance_scale: weight of classifier-free guidance; default: the model's. A mapping
                has one for each of `diffusion.guidance.SOURCES`: {"text": 2, "affect": 3}.

        Raises:
            UserError: a model without an emotion space; as `EmotionSpace.blend`, `check_sampling`.
        """
        check_sampling(num_inference_steps, guidance_scale)
        check_count("num_images_per_prompt", num_images_per_prompt)
        images: list[Image.Image] = []
        for seeds in _batches(range(seed, seed + num_images_per_prompt), self.batch_size):
            states = sample_states(self.model, emotion, seeds)
            pixels = self.model.generate(
                self._noise(seeds).to(self.device),
                self.model.condition_on_states(states, [prompt.strip()] * len(seeds)),
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
            )
            images += [to_image(image) for image in pixels]
        return images

    @named_arguments
    @torch.no_grad()
    def wanted(
        self,
        emotion: str | Mapping[str, float],
        num_images_per_prompt: int = 1,
        *,
        prompt: str = "",
        seed: int = 0,
    ) -> list[ImageRequest]:
        """Return the request that each image of `imagine` answers; raises as `imagine`.

        Valence and arousal are those of its state. The emotion is set if it is the only one.
        """
        check_count("num_images_per_prompt", num_images_per_prompt)
        states = sample_states(self.model, emotion, range(seed, seed + num_images_per_prompt))
        return sampled_requests(self.model, states, emotion, prompt.strip())

    @named_arguments
    @torch.no_grad()
    def steer(self, images: Images, affects: Sequence[Affect], aim: Affect) -> SteeredState:
        """Return the images' mean state, moved towards `aim`: a state for `generate(states=...)`.

        Args:
            images: generated, or any others, see `as_images`.
            affects: the valence and arousal that each image evokes.
            aim: where to move.

        Raises:
            UserError: as `models.steering.steer`, an image that cannot be read.
        """
        loaded = [load_image(image) for image in as_images(images)[0]]
        return steer_images(self.model, loaded, affects, aim, self.batch_size)

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        """Return the initial noise of each seed, [B, C, H, W] on the CPU."""
        shape = self.model.autoencoder.latent_shape
        return torch.stack([Draws("image", seed).normal(*shape) for seed in seeds])

    def _tokenize(self, questions: Sequence[Question]) -> Prompts:
        """Tokenise questions with their images, on the model's device."""
        texts = [question.text for question in questions]
        images = [[load_image(image) for image in question.images] for question in questions]
        return self.model.processor.prompts(texts, images).to(self.device)


def _batches(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
