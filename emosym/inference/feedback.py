"""Feedback on a round of generated images: what the next prompt, or the next state, should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

from emosym.affect.scales import PUBLIC, Affect
from emosym.diffusion.guidance import Scale
from emosym.errors import UserError
from emosym.inference.refinement import Critique, Drawing, Round, StateMix
from emosym.interfaces import ImageGenerator, ImageUnderstander, QuestionAnswerer
from emosym.models.steering import SteeredState
from emosym.records import ImageRequest, Question
from emosym.tasks.answers import parse, reasoning
from emosym.tasks.criticise import criticise_prompt
from emosym.tasks.rewrite import lost_content, rewrite_prompt


class PromptGenerator(ImageGenerator, Protocol):
    """Generates images, and checks prompts before; `EmoSymPipeline` is one."""

    def check_prompt(self, prompt: str) -> None:
        """Raise UserError for a prompt that the generator cannot read."""
        ...


@runtime_checkable
class SteerableGenerator(PromptGenerator, Protocol):
    """Generates images from given states, and steers states; `EmoSymPipeline` is one."""

    def generate(
        self,
        requests: Sequence[ImageRequest],
        *,
        seed: int | Sequence[int],
        num_inference_steps: int | None = None,
        guidance_scale: Scale | None = None,
        states: Tensor | None = None,
    ) -> list[Image.Image]:
        """Generate as `ImageGenerator`; `states` [B, 1 + K, D] replace those of the requests."""
        ...

    def steer(
        self, images: Sequence[Image.Image], affects: Sequence[Affect], aim: Affect
    ) -> SteeredState:
        """Return the mean state of images that evoke `affects`, moved towards `aim`."""
        ...


class Critic(ImageUnderstander, QuestionAnswerer, Protocol):
    """Judges images and answers questions about them in text; `EmoSymPipeline` is one."""


# --- words


def reword(
    generator: PromptGenerator,
    critic: Critic,
    content: str,
    target: Affect,
    drawn: Round,
    pictures: Sequence[Image.Image],
    max_tokens: int | None,
) -> tuple[Round, str]:
    """Return the round with the critic's answers or why its prompt is kept, and the next prompt.

    Args:
        generator: checks the next prompt.
        critic: is asked about the round.
        content: prompt of the first round, whose words every rewrite has to keep.
        target: the requested affect.
        drawn: the round.
        pictures: its images.
        max_tokens: length limit of the critic's answers; None is its default.
    """
    if _surround(drawn.drawings, target):
        return replace(drawn, kept="the images lie on both sides of the request"), drawn.prompt
    best_and_worst = pictures[drawn.best], pictures[drawn.worst]
    critique = _criticise(critic, content, target, drawn, best_and_worst, max_tokens)
    drawn = replace(drawn, critique=critique)
    if not critique.suggestions:
        return replace(drawn, kept="the suggestions cannot be parsed"), drawn.prompt
    answer, prompt, kept = _rewrite(
        generator, critic, content, drawn.prompt, critique.suggestions, max_tokens
    )
    return replace(drawn, rewrite=answer, kept=kept), prompt


def _surround(drawings: Sequence[Drawing], target: Affect) -> bool:
    """Return whether images lie on both sides of the target, on both axes."""
    offsets = [
        (one.affect.valence - target.valence, one.affect.arousal - target.arousal)
        for one in drawings
    ]
    return all(min(axis) <= 0 <= max(axis) for axis in zip(*offsets, strict=True))


def _criticise(
    critic: Critic,
    content: str,
    target: Affect,
    drawn: Round,
    best_and_worst: tuple[Image.Image, Image.Image],
    max_tokens: int | None,
) -> Critique:
    """Ask the critic about a round's best and worst image."""
    text = criticise_prompt(content=content, wanted=target, reached=drawn.mean_affect)
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


# --- state


def steerable(generator: PromptGenerator) -> SteerableGenerator:
    """Return the generator; raise UserError for one that takes no states."""
    if not isinstance(generator, SteerableGenerator):
        raise UserError(
            "feedback through the state needs a generator that takes states",
            got=type(generator).__name__,
            expected="an EmoSymPipeline, or another with `steer` and `generate(states=...)`",
        )
    return generator


def next_state(
    generator: SteerableGenerator, target: Affect, drawn: Round, pictures: Sequence[Image.Image]
) -> tuple[Tensor, StateMix]:
    """Return the next state [1 + K, D], and how it is mixed of a round's images.

    It aims at the affect of the round's own state plus what the images' mean lacks. The state that
    is read from a request counts as having the requested affect.
    """
    present = target if drawn.state is None else drawn.state.affect
    aim = _aim(present, target, drawn.mean_affect)
    steered = generator.steer(pictures, [one.affect for one in drawn.drawings], aim)
    seeds = (one.seed for one in drawn.drawings)
    return steered.state, StateMix(
        images=dict(zip(seeds, steered.images, strict=True)),
        emotions=steered.emotions,
        affect=steered.affect,
    )


def _aim(present: Affect, target: Affect, reached: Affect) -> Affect:
    """Return `present` + `target` - `reached`, cut to the scale: no image is beyond it."""
    points = zip(present.coordinates, target.coordinates, reached.coordinates, strict=True)
    valence, arousal = (
        min(max(now + wanted - mean, PUBLIC.low), PUBLIC.high) for now, wanted, mean in points
    )
    return Affect(valence, arousal)
