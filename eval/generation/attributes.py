"""Which of AffectWorld's visual attributes an image shows, and which of them two images share.

The subject is read by `eval.generation.subject`, the six other attributes by one network whose
weights are shipped: `attributes.safetensors`, trained by `make attribute-reader` with seed 0,
SHA-256 `403cfb714c6bb314d1a0f847b27e8527a570ea970328d2e8785e03e7b78f2452`. It is trained
on drawings alone, on no generated image, and is never a reward.

Share of 1000 held-out drawings that are read correctly (hues: within 30 degrees), and of the same
with blur and noise:

    scene_hue    1.000  1.000
    subject_hue  1.000  1.000
    setting      0.999  0.998
    weather      0.993  0.991
    place        1.000  1.000
    size         0.989  0.988
    subject      1.000  1.000
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from data_tools.affectworld.scene import PLACES, SETTINGS, SIZES, WEATHERS, Scene
from eval.generation.pixel_networks import (
    BATCH,
    WIDTHS,
    convolutions,
    load_weights,
    standardised,
    to_pixels,
)
from eval.generation.subject import SubjectClassifier

WEIGHTS = Path(__file__).with_name("attributes.safetensors")
HUES = ("scene_hue", "subject_hue")
CLASSES: dict[str, tuple[str, ...]] = {
    "setting": SETTINGS,
    "weather": WEATHERS,
    "place": PLACES,
    "size": tuple(SIZES),
}
ATTRIBUTES = (*HUES, *CLASSES, "subject")
SAME_HUE = 1 / 12
"""Largest distance of two hues that agree, as a fraction of the circle: 30 degrees."""
POSITIONS = 4 * 4
"""Positions that the convolutions leave of 64 x 64 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """The attributes of N images, each an array [N]; the fields are `ATTRIBUTES`."""

    scene_hue: NDArray
    """Hue of the background, in [0, 1)."""
    subject_hue: NDArray
    """Hue of the subject, in [0, 1)."""
    setting: NDArray
    """Of `SETTINGS`."""
    weather: NDArray
    """Of `WEATHERS`."""
    place: NDArray
    """Of `PLACES`: where the subject is."""
    size: NDArray
    """Of `SIZES`: how large the subject is."""
    subject: NDArray
    """Of `SUBJECTS`."""

    def __len__(self) -> int:
        return len(self.subject)

    def rows(self, places: NDArray) -> Attributes:
        """Return the attributes of the images at some places."""
        return Attributes(**{name: getattr(self, name)[places] for name in ATTRIBUTES})


def true_attributes(scenes: Sequence[Scene]) -> Attributes:
    """Return the attributes with which scenes are drawn."""
    return Attributes(
        scene_hue=np.array([scene.hue for scene in scenes]),
        subject_hue=np.array([scene.body_hue for scene in scenes]),
        setting=np.array([scene.setting for scene in scenes]),
        weather=np.array([scene.weather for scene in scenes]),
        place=np.array([scene.place for scene in scenes]),
        size=np.array([scene.size for scene in scenes]),
        subject=np.array([scene.subject for scene in scenes]),
    )


def agreement(one: Attributes, other: Attributes) -> dict[str, NDArray]:
    """Return which of `ATTRIBUTES` the images of each row share: name -> booleans [N].

    Hues agree within `SAME_HUE` on the circle. Raises `ValueError` for unequal lengths.
    """
    if len(one) != len(other):
        raise ValueError(f"images are paired by row: got {len(one)} and {len(other)}")
    same = {}
    for name in ATTRIBUTES:
        first, second = getattr(one, name), getattr(other, name)
        if name in HUES:
            apart = np.abs(first - second)
            same[name] = np.minimum(apart, 1 - apart) <= SAME_HUE
        else:
            same[name] = first == second
    return same


class AttributeNet(nn.Module):
    """Four convolutions of stride 2, and a linear head for each attribute but the subject.

    The heads read the features at each position, which tell place and size, and their maxima.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = convolutions(6)
        outputs = dict.fromkeys(HUES, 2) | {name: len(words) for name, words in CLASSES.items()}
        self.heads = nn.ModuleDict(
            {name: nn.Linear((POSITIONS + 1) * WIDTHS[-1], size) for name, size in outputs.items()}
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return (cos, sin) of hues [B, 2] and logits of classes for pixels [B, 3, 64, 64]."""
        # In a pale or dark picture the hue is a small difference between channels: enlarge it.
        chroma = pixels - pixels.mean(1, keepdim=True)
        strength = chroma.square().mean((1, 2, 3), keepdim=True).sqrt()
        channels = torch.cat([standardised(pixels), chroma / (strength + 0.01)], 1)
        features = self.features(channels)
        joined = torch.cat([features.flatten(1), features.amax((2, 3))], 1)
        return {name: head(joined) for name, head in self.heads.items()}


class AttributeReader:
    """The trained network, and the subject classifier."""

    def __init__(self, net: AttributeNet, classifier: SubjectClassifier) -> None:
        self.net = net.eval()
        self.classifier = classifier

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> AttributeReader:
        """Load weights; raise UserError for a file that does not hold them."""
        net = AttributeNet()
        load_weights(net, path, owner="attribute reader", fix="make attribute-reader")
        return cls(net, SubjectClassifier.load())

    def __call__(self, images: Sequence[Image.Image]) -> Attributes:
        """Return the attributes of one or more images of any size."""
        return self.read(to_pixels(images))

    @torch.no_grad()
    def read(self, pixels: Tensor) -> Attributes:
        """Return the attributes of pixels [N, 3, 64, 64] in [0, 1]."""
        batches = [self.net(rows) for rows in pixels.split(BATCH)]
        outputs = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        hues = {name: _hue(outputs[name].numpy()) for name in HUES}
        words = {
            name: np.array(names)[outputs[name].argmax(1).numpy()]
            for name, names in CLASSES.items()
        }
        return Attributes(**hues, **words, subject=np.array(self.classifier.read(pixels)))


def _hue(vectors: NDArray) -> NDArray:
    """Return the hues in [0, 1) of vectors (cos, sin), [N, 2]."""
    turns = np.arctan2(vectors[:, 1], vectors[:, 0], dtype=np.float64) / (2 * math.pi)
    return (turns + 1) % 1  # with the sum first, a tiny negative angle gives 0 and not 1
