"""Self-promotion textual feedback: draw, judge, criticise, rewrite the prompt, draw again.

Only the words of a request change; its valence and arousal are asked for in every round. Nothing
is trained, and what judges is a learned critic, never the truth. Ref: EmoFeedback² (arXiv
2511.19982), which gives three rounds of eight images; the algorithm's details are ours.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Literal, Protocol

from PIL import Image

from emosym.affect.scales import PUBLIC
from emosym.errors import UserError
from emosym.inference.pipeline import check_sampling, complete
from emosym.interfaces import ImageGenerator, ImageUnderstander, QuestionAnswerer
from emosym.models.model import check_range
from emosym.records import ImageRequest, Question, Understanding
from emosym.tasks import prompts
from emosym.tasks.answers import parse, thought
from emosym.tasks.rewards import THRESHOLD

ROUNDS, IMAGES = 3, 8
"""Ref: EmoFeedback², appendix as its reviews tell it."""
EPSILON = THRESHOLD * (PUBLIC.high - PUBLIC.low)
"""ε_r, on `affect.PUBLIC`."""
TOGETHER = 8
"""Images that are judged at once, and kept meanwhile."""
SMALL_WORDS = frozenset(
    {"a", "an", "and", "are", "as", "at", "by", "for", "from", "in", "into", "is", "it", "its"}
    | {"of", "on", "or", "over", "the", "their", "to", "under", "with"}
)
"""Words of a prompt that show nothing by themselves."""

Stopped = Literal["near enough", "all rounds drawn"]


class Painter(ImageGenerator, Protocol):
    """What draws; `EmoSymPipeline` is one."""

    def check_prompt(self, prompt: str) -> None:
        """Raise UserError for a prompt that cannot be drawn."""


class Critic(ImageUnderstander, QuestionAnswerer, Protocol):
    """A judge that also says what to change; `EmoSymPipeline` is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One image of a round as the judge sees it."""

    seed: int
    valence: float
    """On `affect.PUBLIC`."""
    arousal: float
    """On `affect.PUBLIC`."""
    error: float
    """|ΔV| + |ΔA| to what was asked for, in [0, 12]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Critique:
    """What the critic says about a round, seeing its best and its worst image."""

    words: str
    """All that it said."""
    analysis: str
    """Its reasoning; empty where none can be read."""
    suggestions: tuple[str, ...]
    """At most `prompts.MOST_SUGGESTIONS`; empty where none can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What was drawn from one prompt, and what came of it."""

    prompt: str
    drawings: tuple[Drawing, ...]
    best: int
    """Place of the least error in `drawings`; the first of equals."""
    worst: int
    """Place of the largest error; the last of equals."""
    critique: Critique | None = None
    """None where nothing is drawn any more."""
    rewrite: str | None = None
    """All that the critic said when asked for the next prompt; None where it was not asked."""
    kept: str | None = None
    """Why the next round draws a prompt that was drawn before; None where it draws a new one, or
    there is none."""

    @property
    def mean_error(self) -> float:
        """The mean error of its drawings."""
        return fmean(drawing.error for drawing in self.drawings)

    @property
    def mean_affect(self) -> tuple[float, float]:
        """Valence and arousal of its drawings in the mean, on `affect.PUBLIC`."""
        return (
            fmean(drawing.valence for drawing in self.drawings),
            fmean(drawing.arousal for drawing in self.drawings),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """The best image of all rounds, and how it was found."""

    request: ImageRequest
    """What was asked for, completed."""
    image: Image.Image
    rounds: tuple[Round, ...]
    stopped: Stopped

    @property
    def best(self) -> tuple[Round, Drawing]:
        """The image's round and drawing: the least error, the first of equals."""
        found = min(self.rounds, key=lambda one: one.drawings[one.best].error)
        return found, found.drawings[found.best]

    def to_dict(self) -> dict[str, object]:
        """Return all but the image as plain data."""
        found, drawing = self.best
        best = {"round": self.rounds.index(found), "prompt": found.prompt, **asdict(drawing)}
        return {
            "request": asdict(self.request),
            "best": best,
            "stopped": self.stopped,
            "rounds": [asdict(one) | {"mean_error": one.mean_error} for one in self.rounds],
        }


Show = Callable[[str, Drawing, Image.Image], None]
"""Called with each image that was judged, and the prompt it was drawn from."""


def refine(
    painter: Painter,
    critic: Critic,
    request: ImageRequest,
    *,
    rounds: int = ROUNDS,
    images: int = IMAGES,
    seed: int = 0,
    guidance: float | None = None,
    steps: int | None = None,
    epsilon: float = EPSILON,
    max_tokens: int | None = None,
    show: Show | None = None,
) -> Refinement:
    """Draw in rounds, each from a prompt rewritten after the critic's view of the last round.

    The old prompt is drawn again, from other seeds, where its images surround what is wanted (more
    of them come nearer, and words could only move them away), where a rewrite cannot be read,
    drops a word of the content or does not fit the painter, and after a rewrite whose images are
    farther in the mean. The trace says why.

    Args:
        painter: what draws.
        critic: what judges each image, and says and rewrites in words.
        request: with a prompt, whose content every rewrite has to keep, and valence and arousal
            (or an emotion, which brings its own).
        rounds: most rounds.
        images: images a round, at least 2.
        seed: of the first image; the next ones have seed + 1, seed + 2, ...
        guidance: of the painter; None is its own.
        steps: of the painter; None is its own.
        epsilon: an image with an error below 2 epsilon is near enough, no round follows; 0 draws
            them all.
        max_tokens: of the critic's longest answer; None is its own.
        show: called with each image.

    Raises:
        UserError: a request without prompt or affect, or that cannot be drawn; numbers outside
            their range; a judge that gives no numbers.
    """
    wanted = check_request(request, rewritten=True)
    check_range("rounds", rounds, 1, math.inf)
    check_range("images a round", images, 2, math.inf)
    check_range("epsilon", epsilon, 0, PUBLIC.high - PUBLIC.low)
    check_sampling(steps, guidance)
    painter.check_prompt(wanted.prompt)

    done: list[Round] = []
    best: tuple[float, Image.Image] | None = None
    prompt = wanted.prompt
    before: Round | None = None  # whose prompt was rewritten into this one
    while True:
        first = seed + len(done) * images
        seeds = range(first, first + images)
        asked = replace(wanted, prompt=prompt)
        drawn, nearest, farthest = _draw(painter, critic, asked, seeds, guidance, steps, show)
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
            prompt, why = before.prompt, "its images are farther than those of the prompt before"
            drawn = replace(drawn, kept=why)
        elif _surround(drawn.drawings, wanted):
            drawn = replace(drawn, kept="its images surround what is wanted")
        else:
            critique = _criticise(critic, wanted, drawn, (nearest, farthest), max_tokens)
            drawn = replace(drawn, critique=critique)
            if critique.suggestions:
                words, following, kept = _rewrite(
                    painter, critic, wanted.prompt, prompt, critique.suggestions, max_tokens
                )
                drawn, prompt = replace(drawn, rewrite=words, kept=kept), following
            else:
                drawn = replace(drawn, kept="no suggestion can be read")
        before = drawn if drawn.kept is None else None
        done.append(drawn)


def best_of(
    painter: Painter,
    judge: ImageUnderstander,
    request: ImageRequest,
    count: int,
    *,
    seed: int = 0,
    guidance: float | None = None,
    steps: int | None = None,
    show: Show | None = None,
) -> Refinement:
    """Return the best of `count` images of the request as it is: the control of `refine`.

    The images have the seeds seed, seed + 1, ...; so the first round of `refine` is among them.

    Raises:
        UserError: as `refine`; a prompt is not needed.
    """
    wanted = check_request(request, rewritten=False)
    check_range("the number of images", count, 1, math.inf)
    check_sampling(steps, guidance)
    painter.check_prompt(wanted.prompt)
    seeds = range(seed, seed + count)
    drawn, nearest, _ = _draw(painter, judge, wanted, seeds, guidance, steps, show)
    return Refinement(request=wanted, image=nearest, rounds=(drawn,), stopped="all rounds drawn")


def check_request(request: ImageRequest, *, rewritten: bool) -> ImageRequest:
    """Return the request completed; raise UserError where it lacks affect, or words to rewrite."""
    wanted = complete(request)
    if wanted.valence is None:
        raise UserError(
            "there is nothing to judge images by",
            expected="valence and arousal, or an emotion, which brings its own",
        )
    if rewritten and not wanted.prompt:
        raise UserError("there is no prompt to rewrite", expected="what the image shall show")
    return wanted


def lost_content(content: str, prompt: str) -> list[str]:
    """Return the words of `content`, but for `SMALL_WORDS`, that a prompt does not say."""
    said = set(_words(prompt))
    return [word for word in dict.fromkeys(_words(content)) if word not in said | SMALL_WORDS]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _draw(
    painter: Painter,
    judge: ImageUnderstander,
    request: ImageRequest,
    seeds: range,
    guidance: float | None,
    steps: int | None,
    show: Show | None,
) -> tuple[Round, Image.Image, Image.Image]:
    """Draw and judge one image a seed; return the round, its best and its worst image."""
    drawings: list[Drawing] = []
    best = worst = 0
    nearest = farthest = None
    for start in range(0, len(seeds), TOGETHER):
        block = seeds[start : start + TOGETHER]
        # One at a time: in a larger batch sums round otherwise, and `emosym generate` would not
        # give the same bytes.
        images = [
            painter.generate([request], seed=own, guidance=guidance, steps=steps)[0]
            for own in block
        ]
        seen = judge.understand(images, answer=False)
        for own, image, one in zip(block, images, seen, strict=True):
            drawing = _judged(own, one, request)
            place = len(drawings)
            drawings.append(drawing)
            if nearest is None or drawing.error < drawings[best].error:
                best, nearest = place, image
            if farthest is None or drawing.error >= drawings[worst].error:
                worst, farthest = place, image
            if show is not None:
                show(request.prompt, drawing, image)
    drawn = Round(prompt=request.prompt, drawings=tuple(drawings), best=best, worst=worst)
    return drawn, nearest, farthest


def _judged(seed: int, seen: Understanding, request: ImageRequest) -> Drawing:
    error = abs(seen.valence - request.valence) + abs(seen.arousal - request.arousal)
    if not math.isfinite(error):
        raise UserError(
            f"the judge gives no numbers for the image of seed {seed}",
            got=f"valence {seen.valence}, arousal {seen.arousal}",
            fix="choose another judge",
        )
    return Drawing(seed=seed, valence=seen.valence, arousal=seen.arousal, error=error)


def _surround(drawings: Sequence[Drawing], wanted: ImageRequest) -> bool:
    """Return whether images lie to both sides of what is wanted, on both axes."""
    sides = [(one.valence - wanted.valence, one.arousal - wanted.arousal) for one in drawings]
    return all(min(axis) <= 0 <= max(axis) for axis in zip(*sides, strict=True))


def _criticise(
    critic: Critic,
    wanted: ImageRequest,
    drawn: Round,
    pair: tuple[Image.Image, Image.Image],
    max_tokens: int | None,
) -> Critique:
    text = prompts.criticise(
        content=wanted.prompt,
        wanted=(wanted.valence, wanted.arousal),
        reached=drawn.mean_affect,
    )
    with tempfile.TemporaryDirectory(prefix="emosym-") as folder:
        paths = tuple(Path(folder, name) for name in ("best.png", "worst.png"))
        for path, image in zip(paths, pair, strict=True):
            image.save(path)
        question = _question("criticise", text, paths)
        (words,) = critic.answer([question], max_tokens=max_tokens)
    return Critique(
        words=words,
        analysis=thought(words),
        suggestions=parse(words, question).said.get("suggestions", ()),
    )


def _rewrite(
    painter: Painter,
    critic: Critic,
    content: str,
    prompt: str,
    suggestions: tuple[str, ...],
    max_tokens: int | None,
) -> tuple[str, str, str | None]:
    """Return what the critic said, the prompt to draw next, and why that is the old one."""
    question = _question("rewrite", prompts.rewrite(content, prompt, suggestions))
    (words,) = critic.answer([question], max_tokens=max_tokens)
    following = " ".join(parse(words, question).said.get("prompt", "").split())
    kept = _refusal(painter, content, prompt, following)
    return words, following if kept is None else prompt, kept


def _refusal(painter: Painter, content: str, prompt: str, following: str) -> str | None:
    """Return why a rewrite cannot be used; None where it can."""
    if not following:
        return "the rewrite cannot be read"
    if following == prompt:
        return "the rewrite changes nothing"
    if lost := lost_content(content, following):
        return f"the rewrite drops {', '.join(lost)}"
    try:
        painter.check_prompt(following)
    except UserError as error:
        return f"the rewrite cannot be drawn: {error}"
    return None


def _question(task: str, text: str, images: tuple[Path, ...] = ()) -> Question:
    return Question(id=f"refine/{task}", task=task, images=images, split="test", text=text)
