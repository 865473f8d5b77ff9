"""Refinement: generate, judge, change the prompt or the state, generate again.

Every round requests the same valence and arousal. No weights change. The judge is a learned critic,
not the truth. Feedback in words rewrites the prompt: EmoFeedback², textual feedback
(docs/papers.md), with three rounds of eight images; the paper does not give the details of the
algorithm. Feedback through the state is ours: `models.steering` moves the state by what the
images lack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

from PIL import Image
from torch import Tensor

from emosym.affect.scales import PUBLIC, Affect
from emosym.diffusion.guidance import Scale
from emosym.errors import UserError, unknown
from emosym.inference.feedback import Critic, PromptGenerator, next_state, reword, steerable
from emosym.inference.inputs import check_sampling, complete
from emosym.inference.refinement import Drawing, Refinement, Round, Show, StateMix
from emosym.interfaces import ImageUnderstander
from emosym.models.model import check_range
from emosym.records import ImageRequest, Understanding
from emosym.tasks.assessment import THRESHOLD

ROUNDS, IMAGES = 3, 8
"""Default numbers of rounds and of images a round. Ref: EmoFeedback², textual feedback
(docs/papers.md)."""
EPSILON = THRESHOLD * (PUBLIC.high - PUBLIC.low)
"""ε_r of the threshold reward, on `affect.PUBLIC`."""
JUDGED_TOGETHER = 8
"""Images that are judged in one batch."""

Feedback = Literal["words", "state", "both"]
"""What changes from round to round: the prompt, the state that the decoder is conditioned on, or
both."""
LARGER = {
    "words": "a larger mean error than with the prompt before",
    "state": "a larger mean error than with the state before",
    "both": "a larger mean error than with the prompt and state before",
}
"""Why a change is given up."""


@dataclass(frozen=True, slots=True)
class _Source:
    """What a round is generated from."""

    prompt: str
    state: Tensor | None = None
    """[1 + K, D]; None for the state that is read from the request."""
    mix: StateMix | None = None
    """Of the state."""


def refine(
    generator: PromptGenerator,
    critic: Critic,
    request: ImageRequest,
    *,
    feedback: Feedback = "words",
    rounds: int = ROUNDS,
    images: int = IMAGES,
    seed: int = 0,
    guidance_scale: Scale | None = None,
    num_inference_steps: int | None = None,
    epsilon: float = EPSILON,
    max_tokens: int | None = None,
    show: Show | None = None,
) -> Refinement:
    """Generate in rounds; what a round's images lack changes the prompt or state of the next.

    *Words*: the critic names what the best and the worst image lack, and rewrites the prompt. The
    next round uses an earlier prompt in these cases. `Round.kept` says which:

    - The images lie on both sides of the requested valence and arousal. New images of the same
      prompt then come nearer, and another prompt could only move them away.
    - The suggestions or the rewrite cannot be parsed.
    - The rewrite is equal to the prompt, drops content words, or cannot be read by the generator.

    *State*: the next state is the mean of the states that the generator reads from the round's
    images, steered to the affect of the present state plus what the images' mean lacks (an
    integral controller: it rests where the mean is right). The request's own state counts as
    having the requested affect. A state moves by as much as is lacking, so it also moves where
    the images lie on both sides.

    Images with a larger mean error than those before the change give the change up: the next round
    uses the earlier prompt and state. All images have new seeds.

    Args:
        generator: generates the images.
        critic: judges each image, makes suggestions and rewrites the prompt.
        request: a prompt, whose content every rewrite has to keep, with valence and arousal or
            with an emotion, which implies them. Feedback through the state needs no prompt.
        feedback: what changes: words, state or both.
        rounds: maximum number of rounds.
        images: images in a round, at least 2; all of a round are held in memory.
        seed: seed of the first image; the next ones have seed + 1, seed + 2, ...
        guidance_scale: of the generator; None is its default.
        num_inference_steps: of the generator; None is its default.
        epsilon: the search stops at an image with an error below 2 epsilon; 0 never stops.
        max_tokens: length limit of the critic's answers; None is its default.
        show: called with each image.

    Raises:
        UserError: a request without prompt or affect, or that the generator cannot read; numbers
            outside their range; a judge that gives NaN; a generator that takes no states.
    """
    if feedback not in get_args(Feedback):
        raise unknown("feedback", feedback, get_args(Feedback))
    wanted = check_request(request, rewritten=feedback != "state")
    check_range("rounds", rounds, 1, math.inf)
    check_range("images a round", images, 2, math.inf)
    check_range("epsilon", epsilon, 0, PUBLIC.high - PUBLIC.low)
    check_sampling(num_inference_steps, guidance_scale)
    steered = None if feedback == "words" else steerable(generator)
    generator.check_prompt(wanted.prompt)

    target = _target(wanted)
    done: list[Round] = []
    best: tuple[float, Image.Image] | None = None
    source = _Source(wanted.prompt)
    before: tuple[_Source, float] | None = None  # what the last round changed, and its mean error
    while True:
        first = seed + len(done) * images
        judged = list(
            _judged(
                partial(_draw, generator, guidance_scale, num_inference_steps, source.state),
                critic,
                replace(wanted, prompt=source.prompt),
                source.mix,
                range(first, first + images),
                show,
            )
        )
        pictures = [image for _, image in judged]
        drawn = _round(source, [drawing for drawing, _ in judged])
        least = drawn.drawings[drawn.best].error
        if best is None or least < best[0]:
            best = (least, pictures[drawn.best])
        near = least < 2 * epsilon
        if near or len(done) == rounds - 1:
            return Refinement(
                request=wanted,
                image=best[1],
                rounds=(*done, drawn),
                stopped="near enough" if near else "all rounds drawn",
            )
        if before is not None and drawn.mean_error > before[1]:
            drawn = replace(drawn, kept=LARGER[feedback])
            source, before = before[0], None
        else:
            present = source
            if feedback != "state":
                drawn, prompt = reword(
                    generator, critic, wanted.prompt, target, drawn, pictures, max_tokens
                )
                source = replace(source, prompt=prompt)
            if steered is not None:
                state, mix = next_state(steered, target, drawn, pictures)
                source = replace(source, state=state, mix=mix)
            changed = drawn.kept is None or steered is not None
            before = (present, drawn.mean_error) if changed else None
        done.append(drawn)


def best_of(
    generator: PromptGenerator,
    judge: ImageUnderstander,
    request: ImageRequest,
    count: int,
    *,
    seed: int = 0,
    guidance_scale: Scale | None = None,
    num_inference_steps: int | None = None,
    show: Show | None = None,
) -> Refinement:
    """Return the best of `count` images of the unchanged request: the baseline of `refine`.

    The images have the seeds seed, seed + 1, ...; so the first round of `refine` is among them.

    Raises:
        UserError: as `refine`; a prompt is not needed.
    """
    wanted = check_request(request, rewritten=False)
    check_range("the number of images", count, 1, math.inf)
    check_sampling(num_inference_steps, guidance_scale)
    generator.check_prompt(wanted.prompt)
    draw = partial(_draw, generator, guidance_scale, num_inference_steps, None)
    drawings: list[Drawing] = []
    nearest: tuple[float, Image.Image] | None = None
    for drawing, image in _judged(draw, judge, wanted, None, range(seed, seed + count), show):
        drawings.append(drawing)
        if nearest is None or drawing.error < nearest[0]:
            nearest = (drawing.error, image)
    if nearest is None:
        raise ValueError("a round of no images")
    drawn = _round(_Source(wanted.prompt), drawings)
    return Refinement(request=wanted, image=nearest[1], rounds=(drawn,), stopped="all rounds drawn")


def check_request(request: ImageRequest, *, rewritten: bool) -> ImageRequest:
    """Return the completed request. Raises `UserError` without valence and arousal; with
    `rewritten`, also without a prompt.
    """
    wanted = complete(request)
    if wanted.affect is None:
        raise UserError(
            "images cannot be judged without a target",
            expected="valence and arousal, or an emotion, which implies them",
        )
    if rewritten and not wanted.prompt:
        raise UserError("there is no prompt to rewrite", expected="what the image shows")
    return wanted


def _target(request: ImageRequest) -> Affect:
    """Return the requested affect of a request that `check_request` returned."""
    if request.affect is None:
        raise ValueError("the request has no valence and arousal")
    return request.affect


def _draw(
    generator: PromptGenerator,
    guidance_scale: Scale | None,
    num_inference_steps: int | None,
    state: Tensor | None,
    request: ImageRequest,
    seed: int,
) -> Image.Image:
    """Generate one image.

    One image a call: in a larger batch the sums are rounded differently, and `emosym generate`
    would not give the same bytes.
    """
    given: dict[str, Any] = {} if state is None else {"states": state[None]}
    (image,) = generator.generate(
        [request],
        seed=seed,
        guidance_scale=guidance_scale,
        num_inference_steps=num_inference_steps,
        **given,
    )
    return image


def _judged(
    draw: Callable[[ImageRequest, int], Image.Image],
    judge: ImageUnderstander,
    request: ImageRequest,
    mix: StateMix | None,
    seeds: range,
    show: Show | None,
) -> Iterator[tuple[Drawing, Image.Image]]:
    """Generate and judge one image for each seed."""
    for start in range(0, len(seeds), JUDGED_TOGETHER):
        block = seeds[start : start + JUDGED_TOGETHER]
        images = [draw(request, image_seed) for image_seed in block]
        judged = judge.understand(images, answer=False)
        for image_seed, image, understanding in zip(block, images, judged, strict=True):
            drawing = _drawing(image_seed, understanding, _target(request))
            if show is not None:
                show(request.prompt, mix, drawing, image)
            yield drawing, image


def _round(source: _Source, drawings: Sequence[Drawing]) -> Round:
    """Return the record of a round: best is the first of equals, worst the last."""
    places = range(len(drawings))
    return Round(
        prompt=source.prompt,
        state=source.mix,
        drawings=tuple(drawings),
        best=min(places, key=lambda place: drawings[place].error),
        worst=max(reversed(places), key=lambda place: drawings[place].error),
    )


def _drawing(seed: int, judged: Understanding, target: Affect) -> Drawing:
    """Return an image's record; raise UserError where the judge gives NaN."""
    error = judged.affect.distance(target)
    if not math.isfinite(error):
        raise UserError(
            f"the judge gives no finite numbers for the image of seed {seed}",
            got=f"valence {judged.affect.valence}, arousal {judged.affect.arousal}",
            fix="choose another judge",
        )
    return Drawing(seed=seed, affect=judged.affect, error=error)
