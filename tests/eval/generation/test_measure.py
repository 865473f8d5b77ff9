from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from emosym.affect.scales import Affect, Scale
from emosym.errors import UserError
from emosym.records import ImageRequest, Sample
from eval.generation.measure import evaluate_generation
from eval.generation.requests import EvalRequest, requests_from
from tests.eval.painter import Painter, affect_of

STEP = 6 / 255
"""V/A units of one grey level: the painter's rounding error."""


def wanted(valence: float, arousal: float, **known: object) -> EvalRequest:
    return EvalRequest(
        request=ImageRequest(prompt="a boat", affect=Affect(valence, arousal), **known),
        subject="boat",
    )


def test_errors_by_hand() -> None:
    requests = [
        wanted(1, 1, emotion="amusement"),
        wanted(-2, 0, emotion="amusement"),
        wanted(0, -1),
    ]
    subjects = []

    def oracle(image, subject):
        subjects.append(subject)
        return affect_of(image).to(Scale(-1.0, 1.0))  # the error is on PUBLIC

    scores = evaluate_generation(
        Painter(v_shift=0.5, a_shift=-1.0), requests, judge=Painter(), oracle=oracle, seed=0
    )
    assert scores.oracle_v_error == pytest.approx(0.5, abs=STEP)
    assert scores.oracle_a_error == pytest.approx(1.0, abs=STEP)
    assert scores.judge_v_error == pytest.approx(scores.oracle_v_error, abs=1e-9)
    assert scores.judge_a_error == pytest.approx(scores.oracle_a_error, abs=1e-9)
    assert scores.judge_accuracy == 0.5  # 1.5 is seen as amusement, -1.5 as anger
    assert scores.diversity == 0.0
    assert subjects == ["boat"] * 6
    assert (scores.count, scores.images_per_request) == (3, 2)
    json.dumps(scores.to_dict(), allow_nan=False)


def test_the_judge_judges_not_the_generator() -> None:
    class Gloomy(Painter):
        def recognise(self, images):
            raise AssertionError("the generator must not judge itself")

    scores = evaluate_generation(Gloomy(), [wanted(0, 0)], judge=Painter(), seed=0)
    assert scores.judge_v_error == pytest.approx(0, abs=STEP)
    assert scores.oracle_v_error is None


def test_diversity_by_hand() -> None:
    model = Painter(noise=True)
    shown = {}
    scores = evaluate_generation(
        model,
        [wanted(0, 0), wanted(1, 1)],
        judge=Painter(),
        seed=5,
        images_per_request=3,
        chunk=1,
        show=lambda wanted, image: shown.update({wanted: image}),
        shown=1,
    )
    assert len(set(model.seeds)) == 6, "every chunk and every turn has its own noise"
    distances = []
    for request in (0, 1):  # a batch draws the first image of every request, then the second
        blue = [np.random.default_rng(s).integers(256) / 255 for s in model.seeds[request::2]]
        distances += [abs(blue[i] - blue[j]) / 3**0.5 for i, j in ((0, 1), (0, 2), (1, 2))]
    assert scores.diversity == pytest.approx(np.mean(distances))
    assert scores.diversity > 0
    assert list(shown) == [wanted(0, 0)], "the first image of as many requests as are shown"
    assert np.asarray(shown[wanted(0, 0)])[0, 0, 2] / 255 == pytest.approx(
        np.random.default_rng(model.seeds[0]).integers(256) / 255
    )


def test_noise_is_that_of_chunks_of_32_requests() -> None:
    """Published numbers used it: image i of a chunk starts from the chunk's seed + i."""
    model = Painter(noise=True)
    evaluate_generation(
        model,
        [wanted(0, 0)] * 34,
        judge=Painter(),
        seed=3,
        images_per_request=2,
    )
    first = {
        (start, turn): int(np.random.SeedSequence([3, start, turn]).generate_state(1)[0])
        for start in (0, 32)
        for turn in (0, 1)
    }
    expected = [
        first[place // 32 * 32, turn] + place % 32 for turn in (0, 1) for place in range(34)
    ]
    assert sorted(model.seeds) == sorted(expected)


def test_the_same_seed_gives_the_same_scores() -> None:
    requests = [wanted(v, 0) for v in (-2, -1, 0, 1, 2)]

    def run(seed: int):
        return evaluate_generation(Painter(noise=True), requests, judge=Painter(), seed=seed)

    assert run(1) == run(1)
    assert run(1).diversity != run(2).diversity


def test_requests_without_a_target_or_a_subject_do_not_count() -> None:
    requests = [
        wanted(2, 2),
        EvalRequest(request=ImageRequest(prompt="a boat", emotion="anger"), subject="boat"),
        EvalRequest(request=ImageRequest(affect=Affect(0.0, 0.0))),
    ]
    calls = []

    def oracle(image, subject):
        calls.append(subject)
        return Affect(0, 0)

    scores = evaluate_generation(
        Painter(), requests, judge=Painter(), oracle=oracle, seed=0, images_per_request=1
    )
    assert scores.oracle_v_error == 2.0, "of the first request alone"
    assert scores.judge_v_error == pytest.approx(0, abs=STEP)
    assert scores.judge_accuracy == 0.0
    assert scores.diversity is None, "one image has no distance"
    assert calls == ["boat", "boat"]
    with pytest.raises(UserError, match="no request"):
        evaluate_generation(Painter(), [], judge=Painter(), seed=0)


def sample(number: int, emotion: str | None, split: str = "test", **known: object) -> Sample:
    known = {"valence": 1.0, "arousal": -1.0, "prompt": f"scene {number}", **known}
    return Sample(
        id=f"{split}-{number:03}",
        image=Path("unused.png"),
        split=split,
        emotion=emotion,
        attributes={"object": [f"thing {number}", "sky"]},
        **known,
    )


def test_requests_are_balanced_held_out_and_deterministic() -> None:
    pool = [sample(n, ("awe", "fear", "anger")[n % 3]) for n in range(60)]
    pool += [sample(n, "sadness", split="train") for n in range(60)]
    picked = requests_from(pool, 10, seed=7)
    assert Counter(p.request.emotion for p in picked) == {"anger": 4, "awe": 3, "fear": 3}
    assert picked == requests_from(pool[::-1], 10, seed=7), "the order of the pool is irrelevant"
    assert picked[:5] == requests_from(pool, 5, seed=7), "fewer are a beginning of more"
    assert picked != requests_from(pool, 10, seed=8)
    assert len({p.request.prompt for p in picked}) == 10, "no sample twice"
    one = picked[0]
    assert one.subject == one.request.prompt.replace("scene", "thing")
    assert one.request.affect == Affect(1.0, -1.0)


def test_unlabelled_samples_are_balanced_over_quadrants() -> None:
    pool = [sample(n, None, valence=1.0, arousal=1.0) for n in range(30)]
    pool += [sample(n + 30, None, valence=-1.0, arousal=1.0) for n in range(3)]
    picked = requests_from(pool, 8, seed=0)
    assert Counter(p.request.affect.valence for p in picked) == {1.0: 5, -1.0: 3}
    assert len(requests_from(pool, 1000, seed=0)) == 33


def test_a_rating_of_one_axis_is_no_target() -> None:
    (picked,) = requests_from([sample(0, "awe", arousal=None)], 1, seed=0)
    assert picked.request.affect is None


def test_nothing_to_ask_for() -> None:
    blank = sample(0, None, valence=None, prompt=None)
    for pool in ([], [sample(0, "awe", split="train")], [blank]):
        with pytest.raises(UserError, match="no sample to make a request from"):
            requests_from(pool, 4, seed=0)
    with pytest.raises(UserError, match="not positive; got 0"):
        requests_from([sample(0, "awe")], 0, seed=0)
