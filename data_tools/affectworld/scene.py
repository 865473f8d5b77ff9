"""The scene grammar: everything that a picture of AffectWorld shows."""

from __future__ import annotations

import random
from dataclasses import dataclass

SUBJECTS = (
    "boat",
    "butterfly",
    "cat",
    "flower",
    "heart",
    "house",
    "skull",
    "snake",
    "spider",
    "tree",
)
SETTINGS = ("city", "desert", "forest", "hills", "mountains", "sea")
WEATHERS = ("clear", "clouds", "rain", "snow")
PLACES = ("left", "middle", "right")
SIZES = {"small": 0.24, "medium": 0.29, "large": 0.34}
"""Size word -> half extent of the subject as a share of the frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One picture, told in full: the same scene is the same picture at every size."""

    subject: str
    """One of `SUBJECTS`."""
    setting: str
    """One of `SETTINGS`."""
    weather: str
    """One of `WEATHERS`; drawn as texture behind the subject."""
    size: str
    """A key of `SIZES`."""
    place: str
    """One of `PLACES`."""
    mirrored: bool
    """Whether the subject faces the other way."""
    hue: float
    """Hue of the surroundings, a turn in [0, 1)."""
    body_hue: float
    """Hue of the subject, a turn in [0, 1); at least a quarter turn from `hue`."""
    brightness: float
    """Lighting: the mean HSV value that the picture is lit to, in [0, 1]."""
    saturation: float
    """Lighting: the value-weighted saturation that the picture is lit to, in [0, 1]."""
    seed: int
    """Seeds what no word tells: the skyline, where the drops fall, a small shift."""


def draw_scene(rng: random.Random, subject: str, brightness: float, saturation: float) -> Scene:
    """Draw a scene whose content says nothing about its light."""
    hue = rng.random()
    return Scene(
        subject=subject,
        setting=rng.choice(SETTINGS),
        weather=rng.choice(WEATHERS),
        size=rng.choice(tuple(SIZES)),
        place=rng.choice(PLACES),
        mirrored=rng.random() < 0.5,
        hue=hue,
        body_hue=(hue + rng.uniform(0.3, 0.7)) % 1.0,
        brightness=brightness,
        saturation=saturation,
        seed=rng.getrandbits(32),
    )
