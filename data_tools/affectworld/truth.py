"""The ground truth of AffectWorld: the affect that colours and subject of an image evoke.

The colour term is the published regression of affect on brightness and saturation, computed from
the pixels of any image. The truth is used only for evaluation, never as a reward: it measures
whether generated images reach their target, and whether a learned judge was exploited.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_tools.affectworld.scene import SUBJECTS
from emosym.affect.scales import PUBLIC, Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import unknown
from emosym.pictures.loading import load_image

BRIGHTNESS_MEAN, BRIGHTNESS_SD = 0.50, 0.20
SATURATION_MEAN, SATURATION_SD = 0.45, 0.18
"""Mean and standard deviation of image statistics. Our choice, not measured: with them and `GAIN`
the images that can be drawn cover the whole public scale [-3, 3]^2."""

GAIN = 2.0
"""Factor from standard units to the public scale."""

PLEASURE = (0.69, 0.22)
AROUSAL = (-0.31, 0.60)
DOMINANCE = (-0.76, 0.32)
"""Weights of standardised brightness and saturation.
Ref: Valdez & Mehrabian 1994, DOI 10.1037/0096-3445.123.4.394."""

SUBJECT_TERMS: dict[str, tuple[float, float]] = {
    "boat": (0.1, -0.2),
    "butterfly": (0.4, 0.1),
    "cat": (0.3, 0.0),
    "flower": (0.5, -0.2),
    "heart": (0.6, 0.3),
    "house": (0.1, -0.4),
    "skull": (-0.7, 0.2),
    "snake": (-0.4, 0.6),
    "spider": (-0.6, 0.4),
    "tree": (0.2, -0.5),
}
"""Subject -> (valence, arousal) added to the colour term. Our choice; at most 0.7, so that the
colour term dominates."""

SECTORS = (
    "amusement",
    "excitement",
    "fear",
    "anger",
    "disgust",
    "sadness",
    "awe",
    "contentment",
)
"""Label of each 45-degree sector of the valence-arousal plane, counter-clockwise from +valence.

The order follows the norms of the words (Warriner et al. 2013, DOI 10.3758/s13428-012-0314-x):
amusement, excitement, awe and contentment are pleasant, the others unpleasant; of the pleasant
words excitement has the highest and awe the lowest arousal; fear has higher arousal than anger,
sadness lower arousal than disgust. One deviation: the norm of amusement is slightly below the
middle of arousal, here it is slightly above. Equal sectors make the classes equally large.
"""


Number = TypeVar("Number", float, NDArray)


@dataclass(frozen=True, slots=True)
class Colour:
    """Colour statistics of an image."""

    brightness: float
    """Mean HSV value of the pixels, in [0, 1]."""
    saturation: float
    """Sum of chroma / sum of HSV value, in [0, 1]: the mean HSV saturation weighted by value,
    because the saturation of dark pixels is noise. 0 for a black image."""
    hue: float
    """The hue with the most chroma, in [0, 1); 0 for a grey image."""


def colour_of(image: Image.Image) -> Colour:
    """Return the colour statistics of any image."""
    pixels = np.asarray(load_image(image), dtype=np.int64)
    high, low = pixels.max(axis=2), pixels.min(axis=2)
    total = int(high.sum())
    chroma = high - low
    return Colour(
        brightness=total / (255 * high.size),
        saturation=int(chroma.sum()) / total if total else 0.0,
        hue=_main_hue(pixels, high, chroma),
    )


def _main_hue(pixels: np.ndarray, high: np.ndarray, chroma: np.ndarray) -> float:
    coloured = chroma > 0
    if not coloured.any():
        return 0.0
    red, green, blue = (pixels[..., channel][coloured] for channel in range(3))
    top, span = high[coloured], chroma[coloured]
    sixth = np.where(
        top == red,
        (green - blue) / span,
        np.where(top == green, 2 + (blue - red) / span, 4 + (red - green) / span),
    )
    bins = 36
    index = np.floor(sixth / 6 * bins + 0.5).astype(int) % bins
    weight = np.bincount(index, span, minlength=bins)
    smooth = 2 * weight + np.roll(weight, 1) + np.roll(weight, -1)
    return int(smooth.argmax()) / bins


def colour_term(brightness: Number, saturation: Number) -> tuple[Number, Number, Number]:
    """Return valence, arousal and dominance of the colours on the public scale, not clipped.

    Ref: the regression of Valdez & Mehrabian 1994 (see `PLEASURE`).
    """
    z_brightness = (brightness - BRIGHTNESS_MEAN) / BRIGHTNESS_SD
    z_saturation = (saturation - SATURATION_MEAN) / SATURATION_SD
    valence, arousal, dominance = (
        GAIN * (a * z_brightness + b * z_saturation) for a, b in (PLEASURE, AROUSAL, DOMINANCE)
    )
    return valence, arousal, dominance


def light_for(valence: float, arousal: float, subject: str) -> tuple[float, float]:
    """Return the brightness and saturation at which a subject evokes (valence, arousal).

    This inverts `affect_of` before clipping. With a value outside [0, 1] no such image exists.
    """
    term = subject_term(subject)
    v, a = (valence - term[0]) / GAIN, (arousal - term[1]) / GAIN
    determinant = PLEASURE[0] * AROUSAL[1] - PLEASURE[1] * AROUSAL[0]
    z_brightness = (AROUSAL[1] * v - PLEASURE[1] * a) / determinant
    z_saturation = (PLEASURE[0] * a - AROUSAL[0] * v) / determinant
    return (
        BRIGHTNESS_MEAN + BRIGHTNESS_SD * z_brightness,
        SATURATION_MEAN + SATURATION_SD * z_saturation,
    )


def subject_term(subject: str) -> tuple[float, float]:
    """Return the subject's (valence, arousal) term; raise UserError for an unknown subject."""
    if subject not in SUBJECT_TERMS:
        raise unknown("subject", subject, SUBJECTS)
    return SUBJECT_TERMS[subject]


def _clip(value: float) -> float:
    return min(max(value, PUBLIC.low), PUBLIC.high)


def affect_of(colour: Colour, subject: str) -> Affect:
    """Return the affect of colours and subject together, clipped to the public scale."""
    valence, arousal, _ = colour_term(colour.brightness, colour.saturation)
    extra = subject_term(subject)
    return Affect(_clip(valence + extra[0]), _clip(arousal + extra[1]))


def dominance_of(colour: Colour) -> float:
    """Return the dominance of the colours, clipped to the public scale; subjects add nothing."""
    return _clip(colour_term(colour.brightness, colour.saturation)[2])


def oracle(image: Image.Image, subject: str) -> Affect:
    """Return the true affect of any image, drawn or generated, whose prompt names `subject`."""
    return affect_of(colour_of(image), subject)


def angle_of(affect: Affect) -> float:
    """Return the angle of a point of the valence-arousal plane, in degrees [0, 360)."""
    return math.degrees(math.atan2(affect.arousal, affect.valence)) % 360.0


def label_of(affect: Affect) -> str:
    """Return the Mikels label of a point of the valence-arousal plane."""
    return SECTORS[int(angle_of(affect) // 45.0) % 8]


def votes_at(affect: Affect) -> dict[str, float]:
    """Return the votes of a point of the plane: emotion -> weight in [0, 1].

    weight = max(0, cos(angle - middle of the emotion's sector)): 1 in the middle of a sector, 0.71
    in the middle of the next, 0 from 90 degrees on. So `label_of` has the largest weight, at least
    three emotions have one, and opposite emotions never have one together. Our choice.
    """
    angle = angle_of(affect)
    votes = {}
    for name in MIKELS8:
        difference = (angle - 45.0 * SECTORS.index(name) - 22.5 + 180.0) % 360.0 - 180.0
        votes[name] = max(0.0, math.cos(math.radians(difference)))
    return votes
