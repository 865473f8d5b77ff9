"""Valence and arousal of labelled images, sampled from the affective norms of the label's word.

Ref: EmoFeedback², data (docs/papers.md). Its lexicon and spread are not published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from emosym.affect.norms import DEVIATIONS, WORDS
from emosym.affect.scales import PUBLIC, SAM9
from emosym.randomness import Draws
from emosym.records import Sample


def with_lexicon_affect(samples: Sequence[Sample], spread: float, seed: int) -> list[Sample]:
    """Return the samples with valence and arousal added to those that have only a label.

    Values are sampled from N(mean, (spread · deviation)²) of the label's norms and clipped to the
    public scale. They depend only on the seed and the sample's id.

    Args:
        samples: any samples; those with a rating, or without a label, stay the same.
        spread: factor of the norms' standard deviation. At 1 (the disagreement of the raters, about
            2 of 9 points in arousal) the classes overlap almost completely.
        seed: of the random draws.
    """
    return [_with_affect(sample, spread, seed) for sample in samples]


def _with_affect(sample: Sample, spread: float, seed: int) -> Sample:
    emotion = sample.emotion
    if emotion is None or sample.valence is not None or sample.arousal is not None:
        return sample
    noise = Draws(seed, "lexicon", sample.id).normal(2).tolist()
    means, deviations = WORDS[emotion], DEVIATIONS[emotion]
    values = [
        SAM9.convert(mean + spread * deviation * z, PUBLIC)
        for mean, deviation, z in zip(means, deviations, noise, strict=False)
    ]
    valence, arousal = (min(max(value, PUBLIC.low), PUBLIC.high) for value in values)
    return dataclasses.replace(sample, valence=valence, arousal=arousal)
