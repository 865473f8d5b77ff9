"""Paired intervals: which changes are more than noise."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from emosym.errors import UserError
from emosym.records import Question
from emosym.tasks import metrics
from eval.scores import (
    FEWEST_ITEMS,
    METRICS,
    Measured,
    change_interval,
    check_items,
    score,
)
from eval.tasks.measure import score_answers


def items(values, ids=None, metric=metrics.mean):
    arrays = values if isinstance(values, tuple) else (np.asarray(values, dtype=float),)
    ids = ids or [f"item {place}" for place in range(len(arrays[0]))]
    measured = {"m": Measured(metric, arrays, range(len(ids)))}
    stored = score(ids, measured, seed=0, resamples=2).items
    return json.loads(json.dumps(stored))  # as it is read from a report


def test_an_interval_by_hand() -> None:
    """Every item improves by one, whatever its value: the paired interval has no width."""
    before = np.random.default_rng(0).normal(size=40) * 10
    assert change_interval(items(before), items(before + 1), "m") == pytest.approx((1, 1))
    low, high = change_interval(items(before), items(before + np.tile([1, -1], 20)), "m")
    assert low < 0 < high


def test_the_same_items_are_drawn_on_both_sides() -> None:
    """The spread between items (10) is far above the change (0.1): unpaired, it would be noise."""
    noise = np.random.default_rng(1)
    before = noise.normal(size=50) * 10
    after = before + 0.1 + noise.normal(size=50) * 0.05
    low, high = change_interval(items(before), items(after), "m")
    assert 0 < low < 0.1 < high < 0.2
    order = noise.permutation(50)
    names = [f"item {place}" for place in range(50)]
    shuffled = items(after[order], [names[place] for place in order])
    low, high = change_interval(items(before), shuffled, "m")
    assert 0 < low < 0.1 < high < 0.2, "items are paired by id, not by place"


def test_noise_is_seldom_called_a_change() -> None:
    """At most 8 % of changes without an effect; the plain percentile interval has 10 % at n = 10.

    Also with the share of right answers, whose changes are -1, 0 and 1.
    """
    noise = np.random.default_rng(2)
    draws = {
        "normal": lambda n: noise.normal(size=n),
        "right": lambda n: (noise.random(n) < 0.3).astype(float),
    }
    wrong = [
        found is not None and (found[0] > 0 or found[1] < 0)
        for draw in draws.values()
        for count in (10, 30)
        for _ in range(50)
        for found in [change_interval(items(draw(count)), items(draw(count)), "m")]
    ]
    assert np.mean(wrong) < 0.08


@pytest.mark.parametrize("count", [0, 1, 2, FEWEST_ITEMS - 1])
def test_a_few_items_decide_nothing(count: int) -> None:
    assert change_interval(items([0.0] * count), items([1.0] * count), "m") is None
    enough = [0.0] * FEWEST_ITEMS, [1.0] * FEWEST_ITEMS
    assert change_interval(*map(items, enough), "m") == (1, 1)


def test_other_items_or_metrics_are_not_paired() -> None:
    ours, theirs = items([0.0] * 20), items([1.0] * 20, [f"other {n}" for n in range(20)])
    assert change_interval(ours, theirs, "m") is None
    assert change_interval(ours, ours, "unknown") is None
    assert change_interval({}, ours, "m") is None
    pairs = np.arange(20.0), np.arange(20.0)
    assert change_interval(items(pairs, metric=metrics.mae), items([1.0] * 20), "m") is None
    eight, nine = (partial(metrics.macro_f1, classes=n) for n in (8, 9))
    classes = np.arange(20) % 8, np.arange(20) % 8
    assert change_interval(items(classes, metric=eight), items(classes, metric=nine), "m") is None


@pytest.mark.parametrize("name", ["pearson", "spearman", "ccc", "mae", "accuracy", "macro_f1"])
def test_every_metric_is_compared_by_the_metric_itself(name: str) -> None:
    noise = np.random.default_rng(3)
    true = noise.integers(8, size=200)
    bad, good = (np.where(noise.random(200) < share, true, 7 - true) for share in (0.3, 0.9))
    metric = METRICS[name]
    if name == "macro_f1":
        metric = partial(metric, classes=8)
    if name in ("pearson", "spearman", "ccc", "mae"):
        true, bad, good = true.astype(float), bad.astype(float), good.astype(float)
    low, high = change_interval(
        items((bad, true), metric=metric), items((good, true), metric=metric), "m"
    )
    change = metric(good, true) - metric(bad, true)
    assert low < change < high
    assert (high < 0) if name == "mae" else (low > 0)


def test_an_answer_that_does_not_parse_leaves_its_question_in_the_draw() -> None:
    """Answers without a number have no row; the others are compared."""
    questions = [
        Question(
            id=f"q{n}",
            task="valence",
            images=(Path("a.png"),),
            split="test",
            text="?",
            truth={"valence": n / 80},
        )
        for n in range(40)
    ]

    def answers(shift: float, silent: int) -> list[str]:
        return ["no"] * silent + [
            f"<think></think><answer>Valence: {n / 80 + shift:.4f}</answer>"
            for n in range(silent, 40)
        ]

    before, after = (
        score_answers(questions, answers(*how), seed=0, resamples=2)["valence"].items
        for how in ((0.2, 10), (0.1, 0))
    )
    rows = before["metrics"]["mae"]["rows"]
    assert rows[:10] == [None] * 10
    assert rows[10] == pytest.approx([10 / 80 + 0.2, 10 / 80])
    low, high = change_interval(before, after, "mae")
    assert (low, high) == pytest.approx((-0.1, -0.1), abs=1e-3)
    low, high = change_interval(before, after, "answered")
    assert 0 < low < 0.25 < high
    assert change_interval(before, after, "plcc") is not None


def test_every_task_stores_rows_of_every_metric() -> None:
    """A task whose rows are not those of its questions would be unsure for ever."""
    from tests.eval.reports.test_comparison import every_question

    questions = every_question()
    for task, scores in score_answers(questions, [""] * len(questions), seed=0).items():
        assert scores.items["metrics"].keys() == scores.metrics.keys(), task
        assert len(scores.items["ids"]) == scores.count


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: [],
        lambda stored: {},
        lambda stored: stored | {"ids": "abc"},
        lambda stored: stored | {"ids": ["a"] * len(stored["ids"])},
        lambda stored: stored | {"metrics": 3},
        lambda stored: stored | {"metrics": {"m": []}},
        lambda stored: _change(stored, metric="eval"),
        lambda stored: _change(stored, metric=None),
        lambda stored: _change(stored, options={"classes": 10**9}),
        lambda stored: _change(stored, metric="macro_f1", options={"classes": 10**9}),
        lambda stored: _change(stored, rows=[[0.5]]),
        lambda stored: _change(stored, rows=[["a"]] * 12),
        lambda stored: _change(stored, rows=[[True]] * 12),
        lambda stored: _change(stored, rows=[[float("nan")]] * 12),
        lambda stored: _change(stored, rows=[[0.5, 0.5]] * 12),
        lambda stored: _change(stored, metric="accuracy", rows=[[0.5, 0.5]] * 12),
        lambda stored: _change(stored, rows={}),
    ],
)
def test_damaged_items_are_refused(damage) -> None:
    good = items([0.5] * 12)
    check_items(good, "understanding.after.items")
    check_items(None, "understanding.after.items")
    with pytest.raises(UserError, match=r"^understanding\.after\.items"):
        check_items(damage(good), "understanding.after.items")


def _change(stored, **changes):
    return stored | {"metrics": {"m": stored["metrics"]["m"] | changes}}
