"""What is true of a picture: the affect that its colours and its subject evoke.

The colour term is the published regression of affect on brightness and saturation, computed from
the pixels of any image. The truth is a measure, never a reward: it tells whether generation really
moved towards its target and whether a learned judge was fooled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data_tools.affectworld.scene import SUBJECTS
from emosym.affect.scales import PUBLIC, Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import unknown

BRIGHTNESS_MEAN, BRIGHTNESS_SD = 0.50, 0.20
SATURATION_MEAN, SATURATION_SD = 0.45, 0.18
"""The picture statistics that count as average, and their spread. Chosen, not measured: with
them and `GAIN` the pictures that can be drawn cover the public square [-3, 3]^2."""

GAIN = 2.0
"""Standard units -> the public scale."""

PLEASURE = (0.69, 0.22)
AROUSAL = (-0.31, 0.60)
DOMINANCE = (-0.76, 0.32)
"""Weights of standardised brightness and saturation. Ref: Valdez & Mehrabian 1994."""

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
"""Subject -> (valence, arousal) added to the colour term. Our choice, at most 0.7, so that colour
decides and content nudges."""

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

The signs follow the norms of the words (Warriner et al. 2013): amusement, excitement, awe and
contentment are pleasant, the rest unpleasant; excitement is the most aroused pleasant word, awe the
calmest; fear is more aroused than anger, sadness calmer than disgust. Sectors of one width make
the eight classes equally large and the label a function of (valence, arousal). One departure:
the norms put amusement a little below the middle of arousal; here it lies a little above it.
"""


@dataclass(frozen=True, slots=True)
class Colour:
    """Colour statistics of a picture."""

    brightness: float
    """Mean over pixels of the HSV value, in [0, 1]."""
    saturation: float
    """Sum of chroma over sum of value, in [0, 1]: HSV saturation weighted by value, so that
    dark pixels, whose saturation is noise, count little; 0 for a black picture."""
    hue: float
    """The hue with the most chroma, a turn in [0, 1); 0 for a picture without colour."""


def colour_of(image: Image.Image) -> Colour:
    """Return the colour statistics of any picture."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.int64)
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


def colour_term(brightness: float, saturation: float) -> tuple[float, float, float]:
    """Return valence, arousal and dominance of the colours on the public scale, not clipped.

    Ref: Valdez & Mehrabian 1994.
    """
    z_brightness = (brightness - BRIGHTNESS_MEAN) / BRIGHTNESS_SD
    z_saturation = (saturation - SATURATION_MEAN) / SATURATION_SD
    valence, arousal, dominance = (
        GAIN * (a * z_brightness + b * z_saturation) for a, b in (PLEASURE, AROUSAL, DOMINANCE)
    )
    return valence, arousal, dominance


def light_for(valence: float, arousal: float, subject: str) -> tuple[float, float]:
    """Return the brightness and saturation at which a subject evokes (valence, arousal).

    The inverse of the truth before clipping; a value outside [0, 1] means that no picture does.
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
    """Return what colours and subject evoke together, clipped to the public scale."""
    valence, arousal, _ = colour_term(colour.brightness, colour.saturation)
    extra = subject_term(subject)
    return Affect(_clip(valence + extra[0]), _clip(arousal + extra[1]))


def dominance_of(colour: Colour) -> float:
    """Return the dominance of the colours, clipped to the public scale (subjects have no term)."""
    return _clip(colour_term(colour.brightness, colour.saturation)[2])


def oracle(image: Image.Image, subject: str) -> Affect:
    """Return the true affect of any image, drawn or generated, asked to show `subject`."""
    return affect_of(colour_of(image), subject)


def angle_of(valence: float, arousal: float) -> float:
    """Return the position on the circle of affect, in degrees [0, 360)."""
    return math.degrees(math.atan2(arousal, valence)) % 360.0


def label_of(valence: float, arousal: float) -> str:
    """Return the Mikels label of a position."""
    return SECTORS[int(angle_of(valence, arousal) // 45.0) % 8]


def votes_at(valence: float, arousal: float) -> dict[str, float]:
    """Return how strongly a position evokes each emotion, in [0, 1]; `label_of` is the strongest.

    weight = max(0, cos(angle - middle of the emotion's sector)): 1 in the middle of a sector, 0.71
    in the middle of the next, 0 from 90 degrees on. Our choice: neighbours on the circle are felt
    together, opposites never, and at least three emotions always have a weight.
    """
    angle = angle_of(valence, arousal)
    votes = {}
    for name in MIKELS8:
        away = (angle - 45.0 * SECTORS.index(name) - 22.5 + 180.0) % 360.0 - 180.0
        votes[name] = max(0.0, math.cos(math.radians(away)))
    return votes
