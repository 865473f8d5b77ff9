"""Influence is measured with a model whose decoder is exchanged for one that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from emosym.affect.scales import PUBLIC, Affect
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.models.generator import Condition
from emosym.records import Sample, Understanding
from eval.generation.attributes import ATTRIBUTES, Attributes
from eval.generation.influence import (
    ALONE,
    EXCHANGES,
    InfluenceScores,
    Row,
    _derangement,
    _Seen,
    evaluate_influence,
    evaluate_state_alone,
)
from eval.generation.requests import held_out
from tests.model_zoo import make

COUNT = 12


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("data") / "world"
    write_world(folder, 120, 3)
    return held_out(open_dataset(folder), COUNT, 0)


class Painter(EmoSymPipeline):
    """Draws flat images: red is h_ctx, green the wanted valence, blue the prompt."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__(make.tiny(), batch_size=5)
        self.model.space = None
        self.model.generate = self.paint
        self.noises: list[torch.Tensor] = []

    def paint(self, noise: torch.Tensor, condition: Condition, **_: object) -> torch.Tensor:
        self.noises.append(noise)
        red = condition.h_ctx.mean((1, 2)).tanh()
        green = condition.affect[:, 0].nan_to_num() / 3
        blue = condition.text.tokens.mean((1, 2)).tanh()
        colour = torch.stack([red, green, blue], 1)
        return colour[:, :, None, None].expand(-1, -1, 16, 16)


class Judge:
    """Sees valence in green; sees awe where it is above 0, and sadness elsewhere."""

    def recognise(self, images):
        greens = [np.asarray(image)[..., 1].mean() / 127.5 - 1 for image in images]
        return [
            Understanding(
                emotion="awe" if green > 0 else "sadness",
                probabilities={},
                affect=Affect.unchecked(3 * green, 0.0, PUBLIC),
                text="",
            )
            for green in greens
        ], np.zeros((len(images), 1))


def read(images: Sequence[Image.Image]) -> Attributes:
    """See the colour of a flat image as one attribute; all others are alike."""
    red = np.array([str(np.asarray(image)[0, 0, 0]) for image in images])
    same = np.array(["same"] * len(images))
    fields = dict.fromkeys(ATTRIBUTES, same) | {"scene_hue": np.zeros(len(images))}
    return Attributes(**(fields | {"subject_hue": np.zeros(len(images)), "subject": red}))


@pytest.fixture(scope="module")
def scores(samples) -> InfluenceScores:
    return evaluate_influence(
        Painter(samples),
        samples,
        judge=Judge(),
        read=read,
        oracle=lambda image, subject: Judge().recognise([image])[0][0].affect,
        subject_of=lambda sample: "cat",
        plane_images=3,
    )


def row(scores: InfluenceScores, title: str) -> Row:
    (found,) = [each for each in scores.rows if each.exchanged == title]
    return found


def test_only_what_the_decoder_uses_changes_the_picture(scores):
    assert [each.exchanged for each in scores.rows] == [*EXCHANGES, ALONE]
    assert row(scores, "nothing").change == 0
    assert row(scores, "emotion state h_emo").change == 0
    assert row(scores, "reasoning tokens h_ctx").change > 0
    assert row(scores, "prompt").change > 0
    both, ctx = (row(scores, name) for name in ("both states", "reasoning tokens h_ctx"))
    assert both.change == ctx.change
    assert row(scores, ALONE).change is None


def test_the_exchange_is_one_cycle_through_all_images():
    order, at, seen = _derangement(COUNT, 0).tolist(), 0, []
    for _ in range(COUNT):
        seen.append(at)
        at = order[at]
    assert at == 0
    assert sorted(seen) == list(range(COUNT))


def test_the_change_by_hand(samples, scores):
    """Green alone differs, by half the difference of two valences on [-1, 1]."""
    valences = np.array([sample.affect.valence for sample in samples])
    levels = np.round((valences / 3 + 1) * 127.5) / 255
    others = levels[_derangement(COUNT, 0).numpy()]
    expected = np.abs(levels - others).mean() / math.sqrt(3)
    found = row(scores, "wanted valence and arousal").change
    assert found == pytest.approx(expected, abs=1e-3)


def test_what_is_judged_follows_the_source_that_carries_it(samples, scores):
    own = row(scores, "nothing")
    share = np.mean([s.emotion == ("awe" if s.affect.valence > 0 else "sadness") for s in samples])
    assert own.label == pytest.approx(share)
    assert own.r_valence == pytest.approx(1, abs=1e-3)
    assert own.r_arousal is None
    assert row(scores, "reasoning tokens h_ctx").r_valence == own.r_valence
    assert abs(row(scores, "wanted valence and arousal").r_valence) < 0.9
    assert row(scores, ALONE).r_valence is None  # green is the same in all


def test_the_state_alone_is_drawn_without_the_other_rows(samples, scores):
    made = Painter(samples)
    assert evaluate_state_alone(made, samples, judge=Judge(), read=read) == row(scores, ALONE)
    assert sum(len(noise) for noise in made.noises) == COUNT  # each image once


def test_valence_is_followed_over_the_plane(scores):
    assert scores.plane_r_valence == pytest.approx(1, abs=1e-3)
    assert scores.plane_r_arousal is None


def test_agreement_above_chance_by_hand(samples):
    """Images 0, 1, 2 have one valence, 3 another; pictures show the subjects of images 0, 0, 2, 1.

    Pictures 0 and 2 agree with their own image, and with none of the others; picture 1 shows that
    of image 0, one of its two neighbours; image 3 has no neighbour, so it tells nothing of chance.
    """
    near = [replace(s, valence=2.0 * (i == 3), arousal=0.0) for i, s in enumerate(samples[:4])]
    images = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 20, 30, 40)]
    seen = _Seen(near, images, Judge(), read)
    agreed, above = seen._agreement([images[i] for i in (0, 0, 2, 1)])
    assert agreed["subject"].tolist() == [1, 0, 1, 0]
    assert above["subject"].tolist() == [1, -0.5, 1]
    assert agreed["setting"].tolist() == [1, 1, 1, 1]
    assert above["setting"].tolist() == [0, 0, 0]  # every image is alike in it
    assert set(above) == set(ATTRIBUTES)


def test_every_picture_of_an_image_has_its_noise(samples):
    made = Painter(samples)
    evaluate_influence(made, samples, judge=Judge(), plane_images=0)
    noises = torch.cat(made.noises).view(len(EXCHANGES) + 1, COUNT, -1)
    assert (noises == noises[0]).all()
    assert torch.pdist(noises[0]).min() > 1


def test_an_image_without_ratings_is_refused(samples):
    bare = [replace(samples[0], arousal=None), samples[1]]
    with pytest.raises(UserError, match="at least two, each with a label, valence and arousal"):
        evaluate_influence(Painter(samples), bare, judge=Judge())
    with pytest.raises(UserError, match="at least two"):
        evaluate_state_alone(Painter(samples), samples[:1], judge=Judge())
