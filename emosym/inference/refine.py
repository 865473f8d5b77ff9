"""Self-promotion textual feedback: generate, judge, criticise, rewrite the prompt, generate again.

Only the prompt changes; every round requests the same valence and arousal. No weights change. The
judge is a learned critic, not the truth. Ref: EmoFeedback², textual feedback (docs/papers.md),
with three rounds of eight images; the paper does not give the details of the algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from PIL import Image

from emosym.affect.scales import PUBLIC, Affect
from emosym.diffusion.guidance import Scale
from emosym.errors import UserError
from emosym.inference.inputs import check_sampling, complete
from emosym.inference.refinement import Critique, Drawing, Refinement, Round, Show
from emosym.interfaces import ImageGenerator, ImageUnderstander, QuestionAnswerer
from emosym.models.model import check_range
from emosym.records import ImageRequest, Question, Understanding
from emosym.tasks.answers import parse, reasoning
from emosym.tasks.assessment import THRESHOLD
from emosym.tasks.criticise import criticise_prompt
from emosym.tasks.rewrite import lost_content, rewrite_prompt

ROUNDS, IMAGES = 3, 8
"""Default numbers of rounds and of images a round. Ref: EmoFeedback², textual feedback
(docs/papers.md)."""
EPSILON = THRESHOLD * (PUBLIC.high - PUBLIC.low)
"""ε_r of the threshold reward, on `affect.PUBLIC`."""
JUDGED_TOGETHER = 8
"""Images that are judged in one batch, and held in memory until then."""


class PromptGenerator(ImageGenerator, Protocol):
    """Generates images, and checks prompts before; `EmoSymPipeline` is one."""

    def check_prompt(self, prompt: str) -> None:
        """Raise UserError for a prompt that the generator cannot read."""
        ...


class Critic(ImageUnderstander, QuestionAnswerer, Protocol):
    """Judges images and answers questions about them in text; `EmoSymPipeline` is one."""


def refine(
    generator: PromptGenerator,
    critic: Critic,
    request: ImageRequest,
    *,
    rounds: int = ROUNDS,
    images: int = IMAGES,
    seed: int = 0,
    guidance_scale: Scale | None = None,
    num_inference_steps: int | None = None,
    epsilon: float = EPSILON,
    max_tokens: int | None = None,
    show: Show | None = None,
) -> Refinement:
    """Generate in rounds; each round's prompt is rewritten from the critique of the round before.

    The next round uses an earlier prompt, with new seeds, in these cases. `Round.kept` says which:

    - The images lie on both sides of the requested valence and arousal. New images of the same
      prompt then come nearer, and another prompt could only move them away.
    - The suggestions or the rewrite cannot be parsed.
    - The rewrite is equal to the prompt, drops content words, or cannot be read by the generator.
    - The images of a rewritten prompt have a larger mean error than those of the prompt before.

    Args:
        generator: generates the images.
        critic: judges each image, makes suggestions and rewrites the prompt.
        request: a prompt, whose content every rewrite has to keep, with valence and arousal or
            with an emotion, which implies them.
        rounds: maximum number of rounds.
        images: images in a round, at least 2.
        seed: seed of the first image; the next ones have seed + 1, seed + 2, ...
        guidance_scale: of the generator; None is its default.
        num_inference_steps: of the generator; None is its default.
        epsilon: the search stops at an image with an error below 2 epsilon; 0 never stops.
        max_tokens: length limit of the critic's answers; None is its default.
        show: called with each image.

    Raises:
        UserError: a request without prompt or affect, or that the generator cannot read; numbers
            outside their range; a judge that gives NaN.
    """
    wanted = check_request(request, rewritten=True)
    check_range("rounds", rounds, 1, math.inf)
    check_range("images a round", images, 2, math.inf)
    check_range("epsilon", epsilon, 0, PUBLIC.high - PUBLIC.low)
    check_sampling(num_inference_steps, guidance_scale)
    generator.check_prompt(wanted.prompt)

    done: list[Round] = []
    best: tuple[float, Image.Image] | None = None
    prompt = wanted.prompt
    before: Round | None = None  # the last round, if `prompt` is a rewrite of its prompt
    while True:
        first = seed + len(done) * images
        drawn, nearest, farthest = _draw_round(
            generator,
            critic,
            replace(wanted, prompt=prompt),
            range(first, first + images),
            guidance_scale,
            num_inference_steps,
            show,
        )
        least = drawn.drawings[drawn.best].error
        if best is None or least < best[0]:
            best = (least, nearest)
        near = least < 2 * epsilon
        if near or len(done) == rounds - 1:
            return Refinement(
                request=wanted,
                image=best[1],
                rounds=(*done, drawn),
                stopped="near enough" if near else "all rounds drawn",
            )
        if before is not None and drawn.mean_error > before.mean_error:
            prompt = before.prompt
            drawn = replace(drawn, kept="a larger mean error than with the prompt before")
        elif _surround(drawn.drawings, _target(wanted)):
            drawn = replace(drawn, kept="the images lie on both sides of the request")
        else:
            critique = _criticise(critic, wanted, drawn, (nearest, farthest), max_tokens)
            drawn = replace(drawn, critique=critique)
            if critique.suggestions:
                answer, prompt, kept = _rewrite(
                    generator, critic, wanted.prompt, prompt, critique.suggestions, max_tokens
                )
                drawn = replace(drawn, rewrite=answer, kept=kept)
            else:
                drawn = replace(drawn, kept="the suggestions cannot be parsed")
        before = drawn if drawn.kept is None else None
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
    seeds = range(seed, seed + count)
    drawn, nearest, _ = _draw_round(
        generator, judge, wanted, seeds, guidance_scale, num_inference_steps, show
    )
    return Refinement(request=wanted, image=nearest, rounds=(drawn,), stopped="all rounds drawn")


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


def _draw_round(
    generator: PromptGenerator,
    judge: ImageUnderstander,
    request: ImageRequest,
    seeds: range,
    guidance_scale: Scale | None,
    num_inference_steps: int | None,
    show: Show | None,
) -> tuple[Round, Image.Image, Image.Image]:
    """Generate and judge one image for each seed; return the round, its best and worst image.

    Raises `ValueError` for no seeds.
    """
    drawings: list[Drawing] = []
    best = worst = 0
    nearest: Image.Image | None = None
    farthest: Image.Image | None = None
    for start in range(0, len(seeds), JUDGED_TOGETHER):
        block = seeds[start : start + JUDGED_TOGETHER]
        # One image a call: in a larger batch the sums are rounded differently, and
        # `emosym generate` would not give the same bytes.
        images = [
            generator.generate(
                [request],
                seed=image_seed,
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
            )[0]
            for image_seed in block
        ]
        judged = judge.understand(images, answer=False)
        for image_seed, image, understanding in zip(block, images, judged, strict=True):
            drawing = _drawing(image_seed, understanding, _target(request))
            index = len(drawings)
            drawings.append(drawing)
            if nearest is None or drawing.error < drawings[best].error:
                best, nearest = index, image
            if farthest is None or drawing.error >= drawings[worst].error:
                worst, farthest = index, image
            if show is not None:
                show(request.prompt, drawing, image)
    if nearest is None or farthest is None:
        raise ValueError("a round of no images")
    drawn = Round(prompt=request.prompt, drawings=tuple(drawings), best=best, worst=worst)
    return drawn, nearest, farthest


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


def _surround(drawings: Sequence[Drawing], target: Affect) -> bool:
    """Return whether images lie on both sides of the target, on both axes."""
    offsets = [
        (one.affect.valence - target.valence, one.affect.arousal - target.arousal)
        for one in drawings
    ]
    return all(min(axis) <= 0 <= max(axis) for axis in zip(*offsets, strict=True))


def _criticise(
    critic: Critic,
    wanted: ImageRequest,
    drawn: Round,
    best_and_worst: tuple[Image.Image, Image.Image],
    max_tokens: int | None,
) -> Critique:
    """Ask the critic about a round's best and worst image."""
    text = criticise_prompt(
        content=wanted.prompt,
        wanted=_target(wanted),
        reached=drawn.mean_affect,
    )
    question = _question("criticise", text, best_and_worst)
    (answer,) = critic.answer([question], max_tokens=max_tokens)
    suggestions = parse(answer, question).values.get("suggestions")
    return Critique(
        words=answer,
        analysis=reasoning(answer),
        suggestions=suggestions if isinstance(suggestions, tuple) else (),
    )


def _rewrite(
    generator: PromptGenerator,
    critic: Critic,
    content: str,
    prompt: str,
    suggestions: tuple[str, ...],
    max_tokens: int | None,
) -> tuple[str, str, str | None]:
    """Return the critic's answer, the next prompt, and why the old prompt is kept (or None)."""
    question = _question("rewrite", rewrite_prompt(content, prompt, suggestions))
    (answer,) = critic.answer([question], max_tokens=max_tokens)
    rewrite = " ".join(str(parse(answer, question).values.get("prompt", "")).split())
    kept = _rejection(generator, content, prompt, rewrite)
    return answer, rewrite if kept is None else prompt, kept


def _rejection(generator: PromptGenerator, content: str, prompt: str, rewrite: str) -> str | None:
    """Return why a rewrite cannot be used; None where it can."""
    if not rewrite:
        return "the rewrite cannot be parsed"
    if rewrite == prompt:
        return "the rewrite changes nothing"
    if lost := lost_content(content, rewrite):
        return f"the rewrite drops {', '.join(lost)}"
    try:
        generator.check_prompt(rewrite)
    except UserError as error:
        return f"the rewrite cannot be drawn: {error}"
    return None


def _question(task: str, text: str, images: tuple[Image.Image, ...] = ()) -> Question:
    return Question(id=f"refine/{task}", task=task, images=images, split="test", text=text)
