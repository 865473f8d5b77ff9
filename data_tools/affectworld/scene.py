"""The scene grammar: the content of an AffectWorld image."""

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
"""Size word -> half the subject's extent as a fraction of the image's side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A complete description of one image, independent of its size in pixels."""

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
    """Whether the subject is flipped horizontally."""
    hue: float
    """Hue of the background, in [0, 1)."""
    body_hue: float
    """Hue of the subject, in [0, 1); differs from `hue` by at least 0.25 (on the circle)."""
    brightness: float
    """Target of `render.relight`: mean HSV value, in [0, 1]."""
    saturation: float
    """Target of `render.relight`: value-weighted saturation, in [0, 1]."""
    seed: int
    """Seed of details that the prompts do not name: skyline, raindrops, small shifts."""


def draw_scene(rng: random.Random, subject: str, brightness: float, saturation: float) -> Scene:
    """Draw a random scene; its content does not depend on brightness and saturation."""
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
