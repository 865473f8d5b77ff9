"""Questions of the tasks `criticise` and `rewrite`, built from AffectWorld's samples.

The light of a picture decides what it evokes, so suggestions are words of light. The reference
answer suggests the light of the point `criticise.target_beyond`, which compensates the mean error
of the drawings. Ref: EmoFeedback² (arXiv 2511.19982) names both steps; how it trains them, if at
all, is not published.

The tasks themselves are in `emosym.tasks`. Their builders are here, because only AffectWorld's
grammar knows which words of light lead to which affect, and `emosym` imports none of our folders;
`data_tools.questions.build` joins the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

import numpy as np

from data_tools.affectworld.text import colour_word, in_light, light_of, light_word
from data_tools.affectworld.truth import SUBJECT_TERMS, light_for
from data_tools.affectworld.world import BRIGHTNESS, SATURATION, subject_of
from emosym.affect.scales import PUBLIC, UNIT, Affect
from emosym.randomness import Draws
from emosym.records import Question, Sample, Split
from emosym.tasks.criticise import CRITICISE, criticise_prompt, target_beyond
from emosym.tasks.rewrite import REWRITE, rewrite_prompt

DRAWINGS = 8
"""Pictures that play the role of one round of generated images; the best and the worst are
shown."""
ON_PLANE = 0.5
"""Share of questions whose wanted affect is any point of the plane, also where the world has no
picture."""
MISS = 1.5
"""Largest distance on each axis, on [-3, 3], between the wanted affect and the point around which
the drawings are chosen. Where the world has no pictures near that point, the drawings are farther
away."""


@dataclass(frozen=True, slots=True)
class _Described:
    """A sample whose content and light are known in AffectWorld's words."""

    sample: Sample
    prompt: str
    light: tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Picture(_Described):
    """A sample whose subject and affect are known as well."""

    subject: str
    affect: Affect


def criticise_questions(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Ask which words lead from some drawings to the wanted affect, once for each picture.

    The wanted affect is that of the picture itself or, in `ON_PLANE` of the questions, any point of
    the plane. Other pictures of its subject and split, nearest to a point up to `MISS` away, play
    the role of the drawings. A picture is left out where fewer than two others have its subject, or
    where subject, light or affect is unknown.
    """
    for split in get_args(Split):
        subjects: dict[str, list[_Picture]] = {}
        for described in _described(samples, split):
            picture = _picture(described)
            if picture is not None:
                subjects.setdefault(picture.subject, []).append(picture)
        for group in subjects.values():
            points = np.array([picture.affect.coordinates for picture in group])
            for place, picture in enumerate(group if len(group) > 2 else ()):
                draws = Draws(seed, "criticise", picture.sample.id)
                coin, *shares = draws.uniform(5).tolist()
                wanted = picture.affect
                if coin < ON_PLANE:
                    wanted = Affect(shares[0], shares[1], UNIT).to(PUBLIC)
                landed = tuple(
                    target + MISS * (2 * share - 1)
                    for target, share in zip(wanted.coordinates, shares[2:], strict=True)
                )
                distances = np.abs(points - landed).sum(1)
                distances[place] = np.inf
                nearest = np.argsort(distances, kind="stable")[: min(DRAWINGS, len(group) - 1)]
                drawings = [group[other] for other in nearest]
                drawings.sort(key=lambda one: one.affect.distance(wanted))
                yield _criticised(picture, wanted, drawings)


def rewrite_questions(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Ask to put the light of each picture into its prompt.

    Half of the given prompts, chosen at random, name the light of another picture.
    """
    known = [one for split in get_args(Split) for one in _described(samples, split)]
    for picture in known:
        coin, place = Draws(seed, "rewrite", picture.sample.id).uniform(2).tolist()
        other = known[int(place * len(known))]
        before = picture.prompt
        if coin < 0.5:
            before = in_light(picture.prompt, other.light)
        truth = {"prompt": in_light(picture.prompt, picture.light)}
        yield Question(
            id=f"{picture.sample.id}/rewrite",
            task=REWRITE.name,
            images=(),
            split=picture.sample.split,
            text=rewrite_prompt(picture.prompt, before, picture.light),
            truth=truth,
            answer=REWRITE.reply(truth),
        )


def _criticised(picture: _Picture, wanted: Affect, drawings: Sequence[_Picture]) -> Question:
    """Return the question of one picture; drawings are ordered by their errors."""
    best, worst = drawings[0], drawings[-1]
    reached = Affect(
        fmean(one.affect.valence for one in drawings), fmean(one.affect.arousal for one in drawings)
    )
    light = _light_at(target_beyond(wanted, reached), picture.subject)
    truth = {"suggestions": light}
    reason = (
        f"The light is {' and '.join(best.light)}; the next one should be {' and '.join(light)}."
    )
    return Question(
        id=f"{picture.sample.id}/criticise/{best.sample.id}+{worst.sample.id}",
        task=CRITICISE.name,
        images=(best.sample.image, worst.sample.image),
        split=picture.sample.split,
        text=criticise_prompt(content=picture.prompt, wanted=wanted, reached=reached),
        truth=truth,
        answer=CRITICISE.reply(truth, reason=reason),
    )


def _light_at(point: Affect, subject: str) -> tuple[str, str]:
    """Return the words for the light that evokes a point, clipped to the light of the world."""
    brightness, saturation = light_for(*point.coordinates, subject)
    return (
        light_word(min(max(brightness, BRIGHTNESS[0]), BRIGHTNESS[1])),
        colour_word(min(max(saturation, SATURATION[0]), SATURATION[1])),
    )


def _described(samples: Sequence[Sample], split: Split) -> list[_Described]:
    """Return the samples of a split whose light is known in AffectWorld's words, by id."""
    known = []
    for sample in samples:
        if sample.split != split or sample.prompt is None or sample.emotional_prompt is None:
            continue
        light = light_of(sample.emotional_prompt)
        if light is not None:
            known.append(_Described(sample, sample.prompt, light))
    return sorted(known, key=lambda one: one.sample.id)


def _picture(one: _Described) -> _Picture | None:
    """Add subject and affect; None where one is unknown."""
    sample, subject = one.sample, subject_of(one.sample)
    if subject not in SUBJECT_TERMS or sample.affect is None:
        return None
    return _Picture(sample, one.prompt, one.light, subject, sample.affect)
