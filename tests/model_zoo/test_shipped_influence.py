"""What the shipped model draws from, held to about half of what is measured in docs/results.md.

Labels and affect of the pictures are AffectWorld's truth, from their pixels and the subject that is
seen in them; no model judges its own pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_tools.affectworld.truth import label_of, oracle
from data_tools.affectworld.world import subject_of, write_world
from data_tools.dataset import open_dataset
from emosym.inference.pipeline import EmoSymPipeline
from emosym.records import Understanding
from eval.generation.attributes import AttributeReader
from eval.generation.influence import ALONE, SPACE, InfluenceScores, Row, evaluate_influence
from eval.generation.requests import held_out
from eval.generation.subject import SubjectClassifier

IMAGES = 64


class Truth:
    """The affect of a picture by the oracle, for the subject that the classifier sees."""

    def __init__(self) -> None:
        self.classifier = SubjectClassifier.load()

    def recognise(self, images: Sequence[Image.Image]) -> tuple[list[Understanding], NDArray]:
        found = []
        for image, subject in zip(images, self.classifier(images), strict=True):
            affect = oracle(image, subject)
            label = label_of(affect)
            found.append(
                Understanding(emotion=label, probabilities={label: 1.0}, affect=affect, text="")
            )
        return found, np.zeros((len(images), 1))


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> InfluenceScores:
    world = tmp_path_factory.mktemp("world") / "world"
    write_world(world, 640, seed=5150)
    return evaluate_influence(
        EmoSymPipeline.from_pretrained("emosym-tiny"),
        held_out(open_dataset(world), IMAGES, 0),
        judge=Truth(),
        read=AttributeReader.load(),
        oracle=oracle,
        subject_of=subject_of,
        plane_images=3,
        num_inference_steps=8,
        resamples=50,
    )


@pytest.fixture(scope="module")
def rows(scores) -> dict[str, Row]:
    return {row.exchanged: row for row in scores.rows}


def test_there_are_enough_images(scores):
    assert scores.images == IMAGES
