"""Valence and arousal of labelled images, drawn from what people feel at the label's word.

Ref: EmoFeedback² (arXiv 2511.19982) labels EmoSet so; its lexicon and spread are not published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from emosym.affect.norms import DEVIATIONS, WORDS
from emosym.affect.scales import PUBLIC, SAM9
from emosym.randomness import Draws
from emosym.records import Sample


def with_lexicon_affect(samples: Sequence[Sample], spread: float, seed: int) -> list[Sample]:
    """Return the samples, those with a label but no rating with N(mean, spread · deviation).

    One draw an image, a function of (seed, id) alone, clipped to the public scale. The whole
    deviation (spread 1) is the raters' disagreement, about 2 of 9 points in arousal: it nearly
    hides the classes.
    """
    return [
        sample
        if sample.emotion is None or sample.valence is not None or sample.arousal is not None
        else _drawn(sample, spread, seed)
        for sample in samples
    ]


def _drawn(sample: Sample, spread: float, seed: int) -> Sample:
    noise = Draws(seed, "lexicon", sample.id).normal(2).tolist()
    means, deviations = WORDS[sample.emotion], DEVIATIONS[sample.emotion]
    felt = [
        SAM9.convert(mean + spread * deviation * z, PUBLIC)
        for mean, deviation, z in zip(means, deviations, noise, strict=False)
    ]
    valence, arousal = (min(max(value, PUBLIC.low), PUBLIC.high) for value in felt)
    return dataclasses.replace(sample, valence=valence, arousal=arousal)
