from __future__ import annotations

import json

import numpy as np
import pytest

from emosym.affect.scales import Affect, Scale
from emosym.errors import UserError
from emosym.records import ImageRequest
from eval.generation.affect_plane import MEASURED, PlaneScores, evaluate_plane
from eval.generation.requests import EvalRequest
from tests.eval.painter import Painter, affect_of

STEP = 6 / 255
"""V/A units of one grey level: the painter's rounding error."""
FAR = (-2.0, 2.0)
"""Points at which the painter's shifts stay on the scale."""


def wanted(prompt: str, subject: str | None = "boat") -> EvalRequest:
    return EvalRequest(
        request=ImageRequest(prompt=prompt, emotion="awe", affect=Affect(3, 3)), subject=subject
    )


def score(model: Painter, requests: list[EvalRequest], **options: object) -> PlaneScores:
    return evaluate_plane(model, requests, **{"judge": Painter(), "values": FAR} | options)


class Recorder(Painter):
    """Keeps what it was asked."""

    def __init__(self, **known: object) -> None:
        super().__init__(**known)
        self.received: list[ImageRequest] = []

    def generate(self, requests, **options):
        self.received += requests
        return super().generate(requests, **options)


def test_errors_by_hand() -> None:
    scores = score(
        Painter(v_shift=0.5, a_shift=-1.0),
        [wanted("a boat")] * 2,
        oracle=lambda image, subject: affect_of(image).to(Scale(-1.0, 1.0)),
        attainable=lambda subject, target: (0.25, 0.5 if target.valence > 0 else 0.0),
    )
    assert scores.oracle_v_error == pytest.approx(0.5, abs=STEP)
    assert scores.oracle_a_error == pytest.approx(1.0, abs=STEP)
    assert scores.oracle_error == pytest.approx(scores.oracle_v_error + scores.oracle_a_error)
    assert scores.judge_error == pytest.approx(scores.oracle_error, abs=1e-6)
    assert (scores.floor_v_error, scores.floor_a_error) == (0.25, 0.25)
    assert scores.floor_error == 0.5
    assert scores.intervals["oracle_v_error"] == pytest.approx((scores.oracle_v_error,) * 2)
    assert [(one["valence"], one["arousal"]) for one in scores.cells] == [
        (-2, -2),
        (2, -2),
        (-2, 2),
        (2, 2),
    ]
    assert [one["floor_error"] for one in scores.cells] == [0.25, 0.75, 0.25, 0.75]
    json.dumps(scores.to_dict(), allow_nan=False)


def test_a_shift_beyond_the_scale_is_an_error_at_its_end_only() -> None:
    class Timid(Painter):
        """Never paints more than 1 of valence."""

        def generate(self, requests, **options):
            near = [
                ImageRequest(
                    prompt="x",
                    affect=Affect(max(-1.0, min(1.0, r.affect.valence)), r.affect.arousal),
                )
                for r in requests
            ]
            return super().generate(near, **options)

    scores = evaluate_plane(Timid(), [wanted("a boat")], judge=Painter())
    assert len(scores.cells) == 25
    by_valence = {one["valence"]: one["judge_v_error"] for one in scores.cells}
    assert by_valence == pytest.approx({-3: 2, -1.5: 0.5, 0: 0, 1.5: 0.5, 3: 2}, abs=STEP)
    assert scores.judge_v_error == pytest.approx(1.0, abs=STEP)
    assert scores.intervals["judge_v_error"] is None, "of one prompt"


def test_labels_are_left_out_and_noise_is_one_for_a_prompt_and_a_seed() -> None:
    model = Recorder(noise=True)
    score(model, [wanted("one"), wanted("two"), wanted("three")], seeds=(7, 8), batch=2)
    assert {request.emotion for request in model.received} == {None}
    assert {r.affect for r in model.received} == {Affect(v, a) for v in FAR for a in FAR}
    assert [r.prompt for r in model.received] == ["one"] * 8 + ["two"] * 8 + ["three"] * 8
    groups = [model.seeds[at : at + 4] for at in range(0, 24, 4)]
    assert all(len(set(group)) == 1 for group in groups), "the same at all points"
    assert len({group[0] for group in groups}) == 6, "its own for each prompt and seed"
    alone = Recorder(noise=True)
    score(alone, [wanted("one"), wanted("two"), wanted("three")], seeds=(7, 8), batch=1)
    assert alone.seeds == model.seeds, "whatever the batch"


def test_diversity_by_hand() -> None:
    model = Painter(noise=True)
    scores = score(model, [wanted("one"), wanted("two")], seeds=(0, 1))
    blue = [
        np.random.default_rng(own).integers(256) / 255 / 3**0.5
        for own in dict.fromkeys(model.seeds)
    ]
    one, other, two, another = blue  # only the blue of the noise tells images of a point apart
    between_seeds = (abs(one - other) + abs(two - another)) / 2
    between_prompts = (abs(one - two) + abs(other - another)) / 2
    assert scores.seed_diversity == pytest.approx(between_seeds, abs=1e-5)
    assert scores.prompt_diversity == pytest.approx(between_prompts, abs=1e-5)
    lone = score(Painter(noise=True), [wanted("one")])
    assert lone.seed_diversity is lone.prompt_diversity is None


def test_continuity_is_of_each_axis() -> None:
    class Deaf(Painter):
        """Paints the valence asked for, and no arousal."""

        def generate(self, requests, **options):
            flat = [
                ImageRequest(prompt="x", affect=Affect(r.affect.valence, 0.0)) for r in requests
            ]
            return super().generate(flat, **options)

    scores = evaluate_plane(Deaf(), [wanted("one"), wanted("two")], judge=Painter())
    along = {axis: one.mean for axis, one in scores.continuity.items()}
    assert along["valence"].spearman == pytest.approx(1)
    assert along["arousal"].spearman == 0
    assert along["valence"].colour_step == pytest.approx(0.25 / 3**0.5, abs=0.003)
    assert along["arousal"].colour_step == 0
    assert along["arousal"].unevenness is None
    assert scores.continuity["valence"].intervals["spearman"] == pytest.approx((1, 1))


def test_only_a_request_with_a_subject_is_asked_of_the_truth() -> None:
    seen = []

    def classify(images):
        seen.append(len(images))
        return ["boat", "boat", "cat", "skull"]

    scores = score(
        Painter(),
        [wanted("a boat"), wanted("something", None), wanted("a cat", "cat")],
        classify=classify,
        oracle=lambda image, subject: affect_of(image),
    )
    assert seen == [4, 4]
    assert scores.subject_accuracy == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert [one["subject_accuracy"] for one in scores.cells] == [0.5, 0.5, 0.5, 0]
    bare = score(Painter(), [wanted("something", None)], classify=classify)
    assert bare.oracle_error is bare.floor_error is bare.subject_accuracy is None
    assert set(bare.intervals) == set(MEASURED)


def test_progress_counts_prompts() -> None:
    steps = []
    three = [wanted("x")] * 3
    score(Painter(), three, batch=2, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_bad_input_is_reported() -> None:
    with pytest.raises(UserError, match="no request"):
        score(Painter(), [])
    for seeds in ((), (1, 1)):
        with pytest.raises(UserError, match="at least one, none twice"):
            score(Painter(), [wanted("x")], seeds=seeds)
