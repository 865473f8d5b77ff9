"""A small model whose answers are computed: colours are affect, affect is a colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from emosym.affect.scales import PUBLIC, UNIT, Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.records import ImageRequest, Question, Understanding

SIDE = 16


def colour(valence: float, arousal: float) -> tuple[int, int, int]:
    """Return red = valence, green = arousal, each [-3, 3] -> 0..255; blue is free for the noise."""
    red, green = (round(255 * PUBLIC.convert(value, UNIT)) for value in (valence, arousal))
    return red, green, 0


def affect_of(image: Image.Image) -> Affect:
    red, green, _ = np.asarray(image.convert("RGB"), dtype=float).mean(axis=(0, 1)) / 255
    return Affect(UNIT.convert(red, PUBLIC), UNIT.convert(green, PUBLIC))


class Painter:
    """Reads V/A from red and green, paints them back with a known error, and counts its calls."""

    def __init__(self, v_shift: float = 0.0, a_shift: float = 0.0, noise: bool = False) -> None:
        self.v_shift, self.a_shift, self.noise = v_shift, a_shift, noise
        self.seeds: list[int] = []
        self.answered: list[bool] = []

    def understand(
        self, images: Sequence[Image.Image | Path], *, answer: bool = True
    ) -> list[Understanding]:
        self.answered.append(answer)
        return [self._one(image, answer) for image in images]

    def answer(self, questions: Sequence[Question], *, max_tokens: int | None = None) -> list[str]:
        """Rate the valence of each question's image on the question's scale."""
        seen = self.understand([question.images[0] for question in questions])
        values = [
            PUBLIC.convert(s.affect.valence, q.scale) for s, q in zip(seen, questions, strict=True)
        ]
        return [f"<think></think><answer>Valence: {value:.4f}</answer>" for value in values]

    def recognise(self, images: Sequence[Image.Image]) -> tuple[list[Understanding], np.ndarray]:
        return [self._one(image, False) for image in images], np.ones((len(images), 1))

    def _one(self, image: Image.Image | Path, answer: bool) -> Understanding:
        if isinstance(image, Path):
            with Image.open(image) as opened:
                image = opened.convert("RGB")
        affect = affect_of(image)
        label = "amusement" if affect.valence >= 0 else "anger"
        return Understanding(
            emotion=label,
            probabilities={name: float(name == label) for name in MIKELS8},
            affect=affect,
            # It never learned to close its answer when it is calm.
            text=f"<answer>{label}" + ("</answer>" if affect.arousal >= 0 else "")
            if answer
            else "",
        )

    def generate(
        self,
        requests: Sequence[ImageRequest],
        *,
        seed: int | Sequence[int],
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
    ) -> list[Image.Image]:
        own = [seed + i for i in range(len(requests))] if isinstance(seed, int) else list(seed)
        self.seeds += own
        blues = [np.random.default_rng(one).integers(256) for one in own]
        images = []
        for request, blue in zip(requests, blues, strict=True):
            valence, arousal = (0.0, 0.0) if request.affect is None else request.affect.coordinates
            red, green, _ = colour(valence + self.v_shift, arousal + self.a_shift)
            images.append(
                Image.new("RGB", (SIDE, SIDE), (red, green, int(blue) if self.noise else 0))
            )
        return images
