"""Comparison of refining, by each kind of feedback, with generating as many images of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from emosym.affect.scales import Affect
from emosym.diffusion.guidance import Scale
from emosym.errors import UserError
from emosym.inference import refine as refining
from emosym.inference.feedback import Critic, SteerableGenerator
from emosym.inference.refinement import Refinement
from emosym.interfaces import Oracle
from emosym.models.steering import SteeredState
from emosym.records import ImageRequest
from eval.generation.requests import EvalRequest

FEEDBACKS: dict[str, refining.Feedback] = {"": "words", "_state": "state", "_both": "both"}
"""Suffix of a column -> what changes from round to round."""
WAYS = ("one", "best_of", *(f"refine{suffix}" for suffix in FEEDBACKS))
"""The first image; the best of as many images as refining generates; the best image of refining."""


def compare(
    generator: SteerableGenerator,
    critic: Critic,
    oracle: Oracle,
    requests: Sequence[EvalRequest],
    *,
    rounds: int = refining.ROUNDS,
    images: int = refining.IMAGES,
    seed: int = 0,
    guidance_scale: Scale | None = None,
    num_inference_steps: int | None = None,
    classify: Callable[[Sequence[Image.Image]], Sequence[str]] | None = None,
) -> Iterator[dict[str, float]]:
    """Yield the errors (`Affect.distance`) of the ways for each request.

    Each error is measured by the oracle and by the judge.

    `best_of` and every way of refining generate rounds × images each, the first round from the same
    seeds; no image is near enough to stop early. Beside the errors, a row has the share of rounds
    with a rewritten prompt (feedback in words), and the judge's mean error over the images of the
    first round, which the ways share, and of the last round of each.

    Args:
        generator: generates images.
        critic: judges images and rewrites prompts; it chooses the image of each way.
        oracle: true affect from pixels, which no way uses.
        requests: with a prompt, valence and arousal, and a subject.
        rounds: of refining.
        images: of a round.
        seed: of the first request's first image; the next request's seeds follow.
        guidance_scale: of the generator; None is its default.
        num_inference_steps: of the generator; None is its default.
        classify: images -> the subject of each; adds whether a way's image shows the requested one.

    Raises:
        UserError: a request without affect or subject.
    """
    total = rounds * images
    for place, wanted in enumerate(requests):
        first = seed + place * total
        cached = CachedGenerator(generator, images)
        refined = {
            suffix: refining.refine(
                cached,
                critic,
                wanted.request,
                feedback=feedback,
                rounds=rounds,
                images=images,
                seed=first,
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
                epsilon=0,
            )
            for suffix, feedback in FEEDBACKS.items()
        }
        best_of, one = (
            refining.best_of(
                cached,
                critic,
                wanted.request,
                count,
                seed=first,
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
            )
            for count in (total, 1)
        )
        row: dict[str, float] = {}
        for way, result in zip(WAYS, (one, best_of, *refined.values()), strict=True):
            row[f"oracle_{way}"] = _oracle_error(oracle, wanted, result)
            row[f"judge_{way}"] = result.best[1].error
            if classify is not None:
                row[f"subject_{way}"] = float(classify([result.image]) == [wanted.subject])
        rewritten = [last.kept is None for last in refined[""].rounds[:-1]]
        row["rewritten"] = float(np.mean(rewritten) if rounds > 1 else 0)
        row["first_round"] = refined[""].rounds[0].mean_error
        for suffix, result in refined.items():
            row[f"last_round{suffix}"] = result.rounds[-1].mean_error
        yield row


class CachedGenerator:
    """A generator that runs the same request and state from the same seed only once.

    So the ways share images. A missing image is generated together with the rest of its round
    in one batch. In a batch, sums are rounded in another order than in `refine`'s own calls with
    one image; that does not change a mean.
    """

    def __init__(self, generator: SteerableGenerator, images: int) -> None:
        self._generator = generator
        self._images = images
        self._cache: dict[tuple[ImageRequest, bytes, int], Image.Image] = {}

    def check_prompt(self, prompt: str) -> None:
        """Raise UserError for a prompt that the generator refuses."""
        self._generator.check_prompt(prompt)

    def steer(
        self, images: Sequence[Image.Image], affects: Sequence[Affect], aim: Affect
    ) -> SteeredState:
        """Return the state that the generator steers to."""
        return self._generator.steer(images, affects, aim)

    def generate(
        self,
        requests: Sequence[ImageRequest],
        *,
        seed: int | Sequence[int],
        guidance_scale: Scale | None = None,
        num_inference_steps: int | None = None,
        states: Tensor | None = None,
    ) -> list[Image.Image]:
        """Return the image of one request; guidance and steps must be the same in every call."""
        (request,) = requests
        (first,) = [seed] if isinstance(seed, int) else seed
        state = b"" if states is None else states.float().cpu().numpy().tobytes()
        if (request, state, first) not in self._cache:
            seeds = range(first, first + self._images)
            images = self._generator.generate(
                [request] * len(seeds),
                seed=list(seeds),
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
                states=None if states is None else states.expand(len(seeds), -1, -1),
            )
            self._cache |= {
                (request, state, own): image for own, image in zip(seeds, images, strict=True)
            }
        return [self._cache[request, state, first]]


def _oracle_error(oracle: Oracle, wanted: EvalRequest, result: Refinement) -> float:
    target = wanted.request.affect
    if target is None or wanted.subject is None:
        raise UserError("the request has no affect or no subject", got=wanted)
    return oracle(result.image, wanted.subject).distance(target)
