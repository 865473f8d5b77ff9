"""Drawing AffectWorld, a dataset of labelled images, and writing it in EmoSet-118K's layout."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import cos, radians, sin
from pathlib import Path
from typing import get_args

from PIL import Image

from data_tools.affectworld import text
from data_tools.affectworld.render import render
from data_tools.affectworld.scene import SETTINGS, SUBJECTS, Scene, draw_scene
from data_tools.affectworld.truth import (
    SECTORS,
    Colour,
    affect_of,
    colour_of,
    dominance_of,
    label_of,
    light_for,
    votes_at,
)
from data_tools.files.staging import staged_folder, write_json
from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.records import Sample, Split

RADIUS = (0.7, 2.8)
"""Range of the targets' distance from the middle of the plane; near it labels are arbitrary."""
MARGIN = 4.0
"""Distance of targets from a sector's borders in degrees: rounding pixels keeps the label."""
BRIGHTNESS = (0.12, 0.90)
"""Range of brightness in which the subject is recognisable."""
SATURATION = (0.06, 0.92)
"""Range of saturation in which the subject is recognisable."""
SOURCE = "affectworld"
"""Name of the dataset in its annotations. Only for this dataset the true affect can be computed
from pixels."""
QUALITY = 95
"""JPEG quality."""
TEST_SHARE, VAL_SHARE = 0.15, 0.05
"""Fractions of each class in the test and validation splits, as in EmoSet-118K."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One labelled image; `colour`, `affect` and `dominance` are those of the pixels in `jpeg`."""

    id: str
    """`<emotion>_<number>`, as in EmoSet."""
    split: Split
    emotion: str
    scene: Scene
    jpeg: bytes
    colour: Colour
    affect: Affect
    dominance: float

    def annotation(self) -> dict[str, object]:
        """Return an annotation with EmoSet's keys, the true affect and the texts."""
        return {
            "image_id": self.id,
            "source": SOURCE,
            "emotion": self.emotion,
            "brightness": round(self.colour.brightness, 1),
            "colorfulness": round(self.colour.saturation, 1),
            "scene": self.scene.setting,
            "object": [self.scene.subject],
            "valence": self.affect.valence,
            "arousal": self.affect.arousal,
            "dominance": self.dominance,
            "votes": votes_at(self.affect),
            "neutral_prompt": text.neutral_prompt(self.scene),
            "emotional_prompt": text.emotional_prompt(self.scene, self.colour),
            "qwen_aug": text.knowledge(self.scene, self.colour),
        }


def draw_world(count: int, seed: int, size: int = 64) -> Iterator[Drawing]:
    """Yield `count` drawings, the eight emotions in turn; the same arguments give the same bytes.

    Content is drawn independently of the affect, so a neutral prompt does not reveal the emotion.

    Args:
        count: number of images.
        seed: of all random draws.
        size: side of the images in pixels.

    Raises:
        UserError: `count` or `size` is too small.
    """
    if count < 1:
        raise UserError("an AffectWorld needs images", got=count, expected="count of at least 1")
    if size < 16:
        raise UserError("the images are too small", got=f"size {size}", expected="16 or more")
    splits = {
        emotion: _splits(len(range(place, count, len(MIKELS8))), f"{seed} {emotion}")
        for place, emotion in enumerate(MIKELS8)
    }
    for index in range(count):
        number, place = divmod(index, len(MIKELS8))
        emotion = MIKELS8[place]
        rng = random.Random(f"affectworld {seed} {index}")
        scene, jpeg, colour = _draw(rng, emotion, size)
        yield Drawing(
            id=f"{emotion}_{number:05d}",
            split=splits[emotion][number],
            emotion=emotion,
            scene=scene,
            jpeg=jpeg,
            colour=colour,
            affect=affect_of(colour, scene.subject),
            dominance=dominance_of(colour),
        )


def _splits(count: int, seed: str) -> list[Split]:
    least = 1 if count >= 3 else 0  # a small world still has every split
    test, val = (max(least, round(share * count)) for share in (TEST_SHARE, VAL_SHARE))
    sizes: dict[Split, int] = {"test": test, "val": val, "train": count - test - val}
    splits = [split for split, size in sizes.items() for _ in range(size)]
    random.Random(seed).shuffle(splits)
    return splits


def _draw(rng: random.Random, emotion: str, size: int) -> tuple[Scene, bytes, Colour]:
    """Draw images until the saved pixels evoke `emotion` (nearly always the first one does)."""
    while True:
        subject = rng.choice(SUBJECTS)
        scene = draw_scene(rng, subject, *_light(rng, emotion, subject))
        buffer = io.BytesIO()
        # No chroma subsampling: at 64 px it would blur the subject's colours.
        render(scene, size).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        with Image.open(buffer) as saved:
            colour = colour_of(saved)
        if label_of(affect_of(colour, subject)) == emotion:
            return scene, buffer.getvalue(), colour


def _light(rng: random.Random, emotion: str, subject: str) -> tuple[float, float]:
    """Return brightness and saturation for a random target in the emotion's sector."""
    start = 45.0 * SECTORS.index(emotion)
    while True:
        angle = radians(rng.uniform(start + MARGIN, start + 45.0 - MARGIN))
        radius = rng.uniform(*RADIUS)
        light = light_for(radius * cos(angle), radius * sin(angle), subject)
        if (
            BRIGHTNESS[0] <= light[0] <= BRIGHTNESS[1]
            and SATURATION[0] <= light[1] <= SATURATION[1]
        ):
            return light


def write_world(
    out: Path,
    count: int,
    seed: int,
    size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a world in EmoSet-118K's layout; the folder appears completely or not at all.

    Args:
        out: the folder to write.
        count: number of images.
        seed: of all random draws.
        size: side of the images in pixels.
        progress: called with (images done, count) after each image.

    Raises:
        UserError: `out` is not empty or cannot be written; `count` or `size` is too small.
    """
    rows: dict[str, list[list[str]]] = {split: [] for split in get_args(Split)}
    with staged_folder(out) as stage:
        for emotion in MIKELS8:
            (stage / "image" / emotion).mkdir(parents=True)
            (stage / "annotation" / emotion).mkdir(parents=True)
        for done, drawing in enumerate(draw_world(count, seed, size), start=1):
            image = f"image/{drawing.emotion}/{drawing.id}.jpg"
            annotation = f"annotation/{drawing.emotion}/{drawing.id}.json"
            (stage / image).write_bytes(drawing.jpeg)
            write_json(stage / annotation, drawing.annotation())
            rows[drawing.split].append([drawing.emotion, drawing.id, image, annotation])
            if progress is not None:
                progress(done, count)
        for split, split_rows in rows.items():
            write_json(stage / f"{split}.json", split_rows)
        write_json(stage / "info.json", _info())


def _info() -> dict[str, object]:
    levels = [step / 10 for step in range(11)]
    vocabularies: dict[str, tuple[object, ...]] = {
        "emotion": MIKELS8,
        "brightness": tuple(levels),
        "colorfulness": tuple(levels),
        "scene": SETTINGS,
        "object": SUBJECTS,
        "facial_expression": (),
        "human_action": (),
    }
    return {
        name: {
            "label2idx": {str(label): index for index, label in enumerate(labels)},
            "idx2label": {str(index): label for index, label in enumerate(labels)},
        }
        for name, labels in vocabularies.items()
    }


def subject_of(sample: Sample) -> str | None:
    """Return the first object in a sample's EmoSet attributes, or None."""
    objects = sample.attributes.get("object")
    return str(objects[0]) if isinstance(objects, list | tuple) and objects else None
