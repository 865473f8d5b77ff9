"""Criticism of drawings and rewriting of prompts, made from AffectWorld's samples.

What a drawing lacks is known where another picture of the same subject evokes what was wanted: its
light is the one that the prompt has to say. Ref: EmoFeedback² (arXiv 2511.19982) names both steps;
how it taught them, if at all, is not published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from data_tools.affectworld.text import in_light, light_of
from emosym import prompts
from emosym.affect import PUBLIC
from emosym.draws import Draws
from emosym.records import Question, Sample, Split

DRAWINGS = 4
"""Pictures that stand for one round of drawings: the best and the worst of them are shown."""


def criticise_questions(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Ask for the way from the best of some pictures to each picture of the same subject.

    The pictures that stand for the drawings are of the same split. A picture is not asked about
    where fewer than two others have its subject, or where subject, light or affect is unknown.
    """
    for split in get_args(Split):
        subjects: dict[str, list[Sample]] = {}
        for sample in _lit(samples, split):
            facts = (sample.attributes.get("object"), sample.valence, sample.arousal)
            if None not in facts:
                subjects.setdefault(str(facts[0]), []).append(sample)
        for group in subjects.values():
            for wanted in group if len(group) > 2 else ():
                others = [sample for sample in group if sample is not wanted]
                order = Draws(seed, "criticise", wanted.id).permutation(len(others)).tolist()
                round_ = [others[place] for place in order[:DRAWINGS]]
                yield _criticised(wanted, sorted(round_, key=lambda one: _error(one, wanted)))


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


def _criticised(wanted: Sample, drawn: Sequence[Sample]) -> Question:
    """Return the question about the first and the last of `drawn`, in the order of their errors."""
    best, worst = drawn[0], drawn[-1]
    light = light_of(wanted.emotional_prompt)
    # Of the numbers as they are said, so that question, reason and answer agree.
    gaps = {
        f"gap {axis}": round(_said(wanted, axis) - _said(best, axis), 1) + 0.0
        for axis in ("valence", "arousal")
    }
    truth = {**gaps, "suggestions": light}
    reason = (
        f"The light is {' and '.join(light_of(best.emotional_prompt))}, which evokes valence"
        f" {_said(best, 'valence')}, arousal {_said(best, 'arousal')}; it takes"
        f" {' and '.join(light)} light."
    )
    return Question(
        id=f"{wanted.id}/criticise/{best.id}+{worst.id}",
        task="criticise",
        images=(best.image, worst.image),
        split=wanted.split,
        text=prompts.criticise(wanted.valence, wanted.arousal),
        truth=truth,
        answer=prompts.reply(truth, PUBLIC, reason),
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


def _said(sample: Sample, axis: str) -> float:
    """Return a rating with the one decimal of questions and answers."""
    return round(getattr(sample, axis), 1) + 0.0


def _error(sample: Sample, wanted: Sample) -> float:
    return abs(sample.valence - wanted.valence) + abs(sample.arousal - wanted.arousal)
