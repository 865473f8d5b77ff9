from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from PIL import Image

from emosym.affect.scales import Affect
from emosym.config import dump_config, load_config
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.records import ImageRequest, Understanding
from emosym.rl.scorers import (
    REASONS,
    AffectScorer,
    Judge,
    JudgeSpec,
    LabelScorer,
    check_scores,
    image_understander,
)
from tests.model_zoo import make

IMAGES = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]


def seen(valence: float, arousal: float, **probabilities: float) -> Understanding:
    emotion = max(probabilities, key=probabilities.get, default="awe")
    return Understanding(
        emotion=emotion,
        probabilities=probabilities,
        affect=Affect.unchecked(valence, arousal),
        text="",
    )


def predicting(*found: Understanding):
    """Return what understands the first image as the first of these, and so on."""
    return lambda images: list(found[: len(images)])


def wanted(valence: float, arousal: float) -> ImageRequest:
    return ImageRequest(prompt="a boat", affect=Affect(valence, arousal))


# --- affect -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # Errors (0, 0), (1.5, 0.3) and (6, 6), of a scale that is 6 wide.
        ("linear", [1, 1 - 1.8 / 12, 0]),
        ("threshold", [1, 0.5, 0]),
        (
            "gauss",
            [
                1,
                (0.4 * 0.75 + 0.6 * math.exp(-12.5) + 0.4 * 0.95 + 0.6 * math.exp(-0.5)) / 2,
                0,
            ],
        ),
    ],
)
def test_affect_by_hand(shape, expected):
    understand = predicting(seen(1, -1), seen(1.5, 2.3), seen(-3, 3))
    requests = [wanted(1, -1), wanted(0, 2), wanted(3, -3)]
    scores = AffectScorer(understand, shape)(IMAGES, requests)
    assert scores.dtype == np.float64
    assert scores == pytest.approx(expected, abs=1e-12)


def test_linear_affect_is_the_published_mean_over_a_grid():
    points = list(product((-3.0, -1.5, 0.0, 1.5, 3.0), repeat=2))
    for (v, a), (w, b) in product(points[::3], points):
        (score,) = AffectScorer(predicting(seen(v, a)))(IMAGES[:1], [wanted(w, b)])
        assert score == pytest.approx(1 - (abs(v - w) + abs(a - b)) / 12)
        assert 0 <= score <= 1


def test_a_miss_by_just_the_threshold_is_a_miss():
    requests = [wanted(0, 0)] * 3
    understand = predicting(seen(0.5, 0.5), seen(0.49, 0.5), seen(-0.49, 0.49))
    assert AffectScorer(understand, "threshold")(IMAGES, requests).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("shape", ["linear", "threshold", "gauss"])
def test_what_is_not_finite_gets_no_score(shape):
    """The shape `threshold` alone would count it as a miss."""
    for damaged in (seen(0, math.nan), seen(math.inf, 0)):
        with pytest.raises(UserError, match="valence or arousal that is not finite"):
            AffectScorer(predicting(seen(0, 0), damaged), shape)(IMAGES[:2], [wanted(0, 0)] * 2)
    with pytest.raises(UserError, match="a probability that is not finite"):
        LabelScorer(predicting(seen(0, 0, awe=math.nan)))(IMAGES[:1], [ImageRequest(emotion="awe")])


@pytest.mark.parametrize("shape", ["linear", "threshold", "gauss"])
def test_an_image_that_was_not_judged_has_no_score(shape):
    """The others keep theirs, and the judge says why, each reason once and not all of many."""
    silent, cut = UserError("no answer"), UserError("cut off")
    scorer = AffectScorer(predicting(silent, seen(0, 0), cut), shape)
    judge = Judge("http", scorer)
    scores = judge(IMAGES, [wanted(0, 0)] * 3)
    assert np.isnan(scores).tolist() == [True, False, True]
    assert scores[1] == 1
    assert judge.reasons == ["no answer", "cut off"]
    many = [UserError(f"reason {n}") for n in range(20)]
    scorer.understand = lambda images: many
    assert np.isnan(judge(IMAGES[:1] * 20, [wanted(0, 0)] * 20)).all()
    assert judge.reasons == [f"reason {n}" for n in range(REASONS)]
    scorer.understand = predicting(seen(0, 0))
    judge(IMAGES[:1], [wanted(0, 0)])
    assert judge.reasons == []
    plain = Judge("mine", lambda images, requests: [None, 1.0])  # a judge of a plugin
    assert np.isnan(plain(IMAGES[:2], [wanted(0, 0)] * 2)).tolist() == [True, False]
    assert plain.reasons == []


def test_affect_needs_valence_and_arousal():
    def never(images):
        raise AssertionError("it looked before it checked")

    requests = [wanted(0, 0), ImageRequest(prompt="a tree", emotion="awe"), wanted(0, 0)]
    with pytest.raises(UserError, match=r"^request 1 \('a tree', awe\) has no valence and"):
        AffectScorer(never)(IMAGES, requests)
    with pytest.raises(UserError, match=r"'gaus'.*did you mean 'gauss'"):
        AffectScorer(never, "gaus")


# --- label --------------------------------------------------------------------------------------


def test_label_is_the_probability_of_what_was_asked():
    understand = predicting(seen(0, 0, awe=0.7, fear=0.3), seen(0, 0, awe=0.1, fear=0.9))
    requests = [ImageRequest(emotion="fear"), ImageRequest(emotion="fear")]
    assert LabelScorer(understand)(IMAGES[:2], requests).tolist() == [0.3, 0.9]
    with pytest.raises(UserError, match="unknown emotion of a request 'anger'"):
        LabelScorer(understand)(IMAGES[:1], [ImageRequest(emotion="anger")])
    with pytest.raises(UserError, match=r"^request 0 \(V 1 A -2\) has no emotion, which"):
        LabelScorer(understand)(IMAGES[:1], [ImageRequest(affect=Affect(1, -2))])


def test_our_own_branch_judges():
    """The real model at its tiny size, against its own predictions."""
    model = EmoSymPipeline(make.tiny())
    images = make.pictures(3)
    requests = [
        ImageRequest(emotion=name, affect=Affect(v, -v))
        for name, v in (("awe", 2.0), ("fear", -1.0), ("anger", 0.0))
    ]
    predictions = [model.understand([image], answer=False)[0] for image in images]
    affect = AffectScorer(image_understander(model))(images, requests)
    label = LabelScorer(image_understander(model))(images, requests)
    for found, asked, near, share in zip(predictions, requests, affect, label, strict=True):
        distance = sum(
            abs(one - other)
            for one, other in zip(found.affect.coordinates, asked.affect.coordinates, strict=True)
        )
        assert near == pytest.approx(1 - distance / 12, abs=1e-5)
        assert share == pytest.approx(found.probabilities[asked.emotion], abs=1e-5)
    assert len(set(affect.tolist())) == 3


# --- what every judge keeps to ------------------------------------------------------------------


def test_good_scores_pass_as_they_are():
    requests = [wanted(0, 0)] * 2
    found = check_scores("x", [1, 0.5], requests)
    assert found.dtype == np.float64
    assert found.tolist() == [1, 0.5]
    assert check_scores("x", np.array([2, 3], np.float32), requests).tolist() == [2, 3]
    assert check_scores("x", [], []).shape == (0,)


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        (
            [1.0, math.inf],
            r"judge 'pick' gives no finite score for request 1 \('a boat', V 1 A 2\)",
        ),
        ([-math.inf, 0.0], "no finite score for request 0 .*got -inf"),
        ([1.0], r"not give one score for each image, none for request 1 \('a boat'.*got .*\[1\]"),
        ([1.0, 2.0, 3.0], r"not give one score for each image; got scores of shape \[3\]"),
        (
            np.ones((2, 1)),
            r"one score for each image.*of shape \[2, 1\].*expected \[2\]",
        ),
        (np.float64(1), r"one score for each image, none for request 0.*got scores of shape \[\]"),
        (["good", "bad"], "judge 'pick' gives scores that are not numbers"),
    ],
)
def test_bad_scores_stop_with_judge_and_request(scores, problem):
    with pytest.raises(UserError, match=problem):
        check_scores("pick", scores, [wanted(0, 0), wanted(1, 2)])


def test_a_spec_comes_from_a_configuration():
    spec = load_config(JudgeSpec, None, ["path=hub/name", "timeout=3", "retries=0"])
    assert spec == JudgeSpec(path="hub/name", timeout=3.0, retries=0)
    assert "cache: null" in dump_config(spec)
