"""Criticism of drawings and rewriting of prompts, made from AffectWorld's samples.

A picture's light decides what it evokes, so what drawings lack is light. The critic suggests the
light as far beyond what was wanted as they fell short in the mean: who draws missed once, and asked
for the same would miss again. Ref: EmoFeedback² (arXiv 2511.19982) names both steps; how it taught
them, if at all, is not published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import get_args

import numpy as np

from data_tools.affectworld.text import colour_word, in_light, light_of, light_word
from data_tools.affectworld.truth import SUBJECT_TERMS, light_for
from data_tools.affectworld.world import BRIGHTNESS, SATURATION, subject_of
from emosym.affect.scales import PUBLIC, UNIT
from emosym.randomness import Draws
from emosym.records import Question, Sample, Split
from emosym.tasks import prompts

DRAWINGS = 8
"""Pictures that stand for one round of drawings: the best and the worst of them are shown."""
ON_PLANE = 0.5
"""Share of questions that want any point of the plane, also where no picture of the world is."""
MISS = 1.5
"""How far a round's drawings are taken from what was wanted, at most, on each axis of
`affect.PUBLIC`; where no picture is, they are farther."""


def criticise_questions(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Ask which words lead from some drawings to what was wanted, once for each picture.

    Wanted is what the picture itself evokes or, in `ON_PLANE` of the questions, any point of the
    plane. Other pictures of its subject and split, nearest to a point up to `MISS` away, stand for
    the drawings. A picture is not asked about where fewer than two others have its subject, or
    where subject, light or affect is unknown.
    """
    for split in get_args(Split):
        subjects: dict[str, list[Sample]] = {}
        for sample in _lit(samples, split):
            subject = subject_of(sample)
            if subject in SUBJECT_TERMS and None not in (sample.valence, sample.arousal):
                subjects.setdefault(subject, []).append(sample)
        for subject, group in subjects.items():
            points = np.array([_affect(one) for one in group])
            for place, sample in enumerate(group if len(group) > 2 else ()):
                coin, *shares = Draws(seed, "criticise", sample.id).uniform(5).tolist()
                wanted = _affect(sample)
                if coin < ON_PLANE:
                    wanted = tuple(UNIT.convert(share, PUBLIC) for share in shares[:2])
                landed = tuple(
                    want + MISS * (2 * share - 1)
                    for want, share in zip(wanted, shares[2:], strict=True)
                )
                far = np.abs(points - landed).sum(1)
                far[place] = np.inf
                nearest = np.argsort(far, kind="stable")[: min(DRAWINGS, len(group) - 1)]
                drawn = [group[other] for other in nearest]
                drawn.sort(key=lambda one: _distance(one, wanted))
                yield _criticised(sample, subject, wanted, drawn)


def rewrite_questions(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Ask to put the light of each picture into its prompt.

    Every second prompt, by a draw of its own, says another picture's light beforehand.
    """
    lit = [sample for split in get_args(Split) for sample in _lit(samples, split)]
    for wanted in lit:
        coin, place = Draws(seed, "rewrite", wanted.id).uniform(2).tolist()
        other = lit[int(place * len(lit))]
        before = wanted.prompt
        if coin < 0.5:
            before = in_light(wanted.prompt, light_of(other.emotional_prompt))
        light = light_of(wanted.emotional_prompt)
        truth = {"prompt": in_light(wanted.prompt, light)}
        yield Question(
            id=f"{wanted.id}/rewrite",
            task="rewrite",
            images=(),
            split=wanted.split,
            text=prompts.rewrite(wanted.prompt, before, light),
            truth=truth,
            answer=prompts.reply(truth, PUBLIC, None),
        )


def _criticised(
    sample: Sample, subject: str, wanted: tuple[float, float], drawn: Sequence[Sample]
) -> Question:
    """Return the question that a sample stands for, about drawings in the order of their errors."""
    best, worst = drawn[0], drawn[-1]
    reached = tuple(fmean(axis) for axis in zip(*map(_affect, drawn), strict=True))
    light = _light_at(*prompts.beyond(wanted, reached), subject)
    truth = {"suggestions": light}
    reason = (
        f"The light is {' and '.join(light_of(best.emotional_prompt))}; the next one should be"
        f" {' and '.join(light)}."
    )
    return Question(
        id=f"{sample.id}/criticise/{best.id}+{worst.id}",
        task="criticise",
        images=(best.image, worst.image),
        split=sample.split,
        text=prompts.criticise(content=sample.prompt, wanted=wanted, reached=reached),
        truth=truth,
        answer=prompts.reply(truth, PUBLIC, reason),
    )


def _light_at(valence: float, arousal: float, subject: str) -> tuple[str, str]:
    """Return the words for the light that evokes a point, held within the light that is drawn."""
    brightness, saturation = light_for(valence, arousal, subject)
    return (
        light_word(min(max(brightness, BRIGHTNESS[0]), BRIGHTNESS[1])),
        colour_word(min(max(saturation, SATURATION[0]), SATURATION[1])),
    )


def _lit(samples: Sequence[Sample], split: Split) -> list[Sample]:
    """Return the samples of a split whose light is told in AffectWorld's words, by id."""
    known = [
        sample
        for sample in samples
        if sample.split == split
        and sample.prompt is not None
        and sample.emotional_prompt is not None
        and light_of(sample.emotional_prompt) is not None
    ]
    return sorted(known, key=lambda sample: sample.id)


def _affect(sample: Sample) -> tuple[float, float]:
    return sample.valence, sample.arousal


def _distance(one: Sample, point: tuple[float, float]) -> float:
    return abs(one.valence - point[0]) + abs(one.arousal - point[1])
