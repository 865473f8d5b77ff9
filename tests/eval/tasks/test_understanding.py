from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from PIL import Image

from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.records import Sample
from eval.tasks.understanding import evaluate_understanding
from tests.eval.painter import SIDE, Painter, colour


def painted(folder: Path, name: str, shows: tuple[float, float], **known: object) -> Sample:
    path = folder / f"{name}.png"
    Image.new("RGB", (SIDE, SIDE), colour(*shows)).save(path)
    return Sample(id=name, image=path, split="test", **known)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return [
        painted(tmp_path, "a", (3, 3), emotion="amusement", valence=2.0, arousal=3.0),
        painted(tmp_path, "b", (3, -3), emotion="awe", valence=2.0, arousal=-2.0),
        painted(tmp_path, "c", (-3, 3), emotion="anger", valence=-3.0, arousal=1.0),
        painted(tmp_path, "d", (-3, -3), valence=None, arousal=-3.0),
    ]


def test_scores_by_hand(samples: list[Sample]) -> None:
    train = [
        Sample(id="t", image=Path("t.png"), split="train", valence=1.0, arousal=-1.0),
        Sample(id="u", image=Path("u.png"), split="train", valence=0.0),
    ]
    scores = evaluate_understanding(
        Painter(),
        samples,
        train=train,
        parse=lambda text, sample: text if text.endswith("</answer>") else None,
    )
    assert scores.count == 4
    assert scores.accuracy == pytest.approx(2 / 3)  # the label-less sample does not count
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0 + 1) / 3)  # amusement, awe, anger
    assert scores.v_mae == pytest.approx((1 + 1 + 0) / 3)
    assert scores.a_mae == pytest.approx((0 + 1 + 2 + 0) / 4)
    assert scores.v_mae_mean == pytest.approx((1.5 + 1.5 + 3.5) / 3)  # the mean is 0.5
    assert scores.a_mae_mean == pytest.approx((4 + 1 + 2 + 2) / 4)  # the mean is -1
    assert scores.v_pearson == pytest.approx(1.0)
    assert scores.answer_valid == 0.5
    place = scores.labels.index
    assert scores.confusion[place("awe")][place("amusement")] == 1
    assert sum(map(sum, scores.confusion)) == 3
    low, high = scores.intervals["a_mae"]
    assert 0 <= low <= scores.a_mae <= high <= 2


def test_what_is_not_known_is_none(samples: list[Sample]) -> None:
    bare = [
        dataclasses.replace(sample, emotion=None, valence=None, arousal=None) for sample in samples
    ]
    model = Painter()
    scores = evaluate_understanding(model, bare)
    assert model.answered == [False], "no text is decoded when nothing parses it"
    measured = dataclasses.asdict(scores)
    assert measured.pop("count") == 4
    assert len(measured.pop("labels")) == 8
    assert set(measured.pop("intervals").values()) == {None}
    items = measured.pop("items")["metrics"]
    assert {name: one["rows"] for name, one in items.items()} == dict.fromkeys(items, [None] * 4)
    assert set(measured.values()) == {None}
    json.dumps(scores.to_dict(), allow_nan=False)


def test_a_model_that_diverged_is_an_error_that_names_the_sample(samples: list[Sample]) -> None:
    class Diverged(Painter):
        def _one(self, image, answer):
            predicted = super()._one(image, answer)
            affect = Affect.unchecked(math.nan, predicted.affect.arousal)
            return dataclasses.replace(predicted, affect=affect)

    with pytest.raises(UserError, match="valence for a is outside its scale; got nan"):
        evaluate_understanding(Diverged(), samples)


def test_bad_input(samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="no sample to evaluate"):
        evaluate_understanding(Painter(), [])
    with pytest.raises(UserError, match=r"unknown emotion 'angr'.*did you mean 'anger'"):
        evaluate_understanding(Painter(), [dataclasses.replace(samples[0], emotion="angr")])
