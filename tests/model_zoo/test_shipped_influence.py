"""What the shipped model draws from, held to about half of what docs/experiments.md measures.

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


def test_the_state_alone_draws_the_emotion_of_its_image(rows):
    """Chance is 0.125 for the label and 0 for the correlations."""
    row = rows[ALONE]
    assert row.label >= 0.30
    assert row.r_valence is not None
    assert row.r_arousal is not None
    assert min(row.r_valence, row.r_arousal) >= 0.43


def test_the_emotion_space_alone_draws_its_emotion(rows):
    assert rows[SPACE].label >= 0.35


def test_every_source_of_the_condition_changes_the_picture(rows):
    affect = rows["wanted valence and arousal"].change or 0
    h_ctx = rows["reasoning tokens h_ctx"].change or 0
    assert affect >= 0.09
    assert h_ctx >= 0.01
    assert (rows["prompt"].change or 0) >= 0.1


def test_wanted_valence_and_arousal_are_followed_over_the_plane(scores):
    assert scores.plane_r_valence >= 0.85
    assert scores.plane_r_arousal >= 0.85
