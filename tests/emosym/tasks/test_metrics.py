from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix, f1_score

from emosym.tasks import metrics

EMPTY = np.array([])


def test_accuracy_by_hand() -> None:
    assert metrics.accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75
    assert metrics.accuracy(EMPTY, EMPTY) is None


def test_macro_f1_by_hand() -> None:
    # Class 0: precision 1/2, recall 1 -> 2/3. Class 1: precision 1, recall 1/2 -> 2/3.
    # Class 2 is predicted by nobody and true for nobody: no F1, and not a zero either.
    f1 = metrics.macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]), classes=3)
    assert f1 == pytest.approx(2 / 3)
    # Class 2 is predicted once and never true: it counts as 0.
    f1 = metrics.macro_f1(np.array([0, 2]), np.array([0, 1]), classes=3)
    assert f1 == pytest.approx(1 / 3)
    assert metrics.macro_f1(EMPTY.astype(int), EMPTY.astype(int), classes=3) is None
    # The second said nothing: a miss for class 1 (F1 0), no class of its own. Class 0: F1 1.
    f1 = metrics.macro_f1(np.array([0, 3]), np.array([0, 1]), classes=3)
    assert f1 == pytest.approx(1 / 2)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=60))
def test_classification_agrees_with_sklearn(pairs: list[tuple[int, int]]) -> None:
    predicted, true = np.array(pairs).T
    assert metrics.macro_f1(predicted, true, classes=8) == pytest.approx(
        f1_score(true, predicted, average="macro", zero_division=0), abs=1e-6
    )
    assert (
        metrics.confusion_matrix(predicted, true, 8)
        == confusion_matrix(true, predicted, labels=range(8))
    ).all()


def test_confusion_rows_are_true_columns_are_predicted() -> None:
    found = metrics.confusion_matrix(np.array([1, 1, 0]), np.array([0, 1, 0]), 2)
    assert found.tolist() == [[1, 1], [0, 1]]
    assert metrics.confusion_matrix(EMPTY.astype(int), EMPTY.astype(int), 2).sum() == 0


def test_errors_and_correlations_by_hand() -> None:
    predictions, targets = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
    assert metrics.mae(predictions, targets) == 2.0
    assert metrics.pearson(predictions, targets) == pytest.approx(1.0)
    # Moments over N: cov 4/3, variances 2/3 and 8/3, means 2 and 4 -> (8/3) / (10/3 + 4) = 4/11.
    assert metrics.ccc(predictions, targets) == pytest.approx(4 / 11)
    assert metrics.pearson(predictions, -targets) == pytest.approx(-1.0)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4; around 2.5 the sums of products are 4.5, 4.5, 5.
    predictions, targets = np.array([1.0, 5.0, 5.0, 9.0]), np.array([-2.0, 0.0, 7.0, 8.0])
    assert metrics.spearman(predictions, targets) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert metrics.spearman(predictions, np.exp(predictions)) == pytest.approx(1.0)


def test_undefined_is_none_never_nan() -> None:
    flat, ramp = np.ones(4), np.arange(4.0)
    assert metrics.mae(EMPTY, EMPTY) is None
    for pair in ((EMPTY, EMPTY), (ramp[:1], ramp[:1]), (flat, ramp), (ramp, flat)):
        assert metrics.pearson(*pair) is None
        assert metrics.spearman(*pair) is None
    assert metrics.ccc(flat, flat) is None
    assert metrics.ccc(flat, ramp) == 0.0
    with pytest.raises(ValueError, match="not finite"):
        metrics.mae(np.array([math.nan]), np.array([0.0]))
    with pytest.raises(ValueError, match=r"unequal length: \[1, 2\]"):
        metrics.mae(np.zeros(1), np.zeros(2))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-9, 9)), min_size=2, max_size=20))
def test_spearman_agrees_with_ranks_counted_one_by_one(pairs: list[tuple[int, int]]) -> None:
    def ranks(values: np.ndarray) -> list[float]:
        return [sum(o < v for o in values) + sum(o == v for o in values) / 2 for v in values]

    predictions, targets = np.array(pairs, dtype=float).T
    found = metrics.spearman(predictions, targets)
    if np.ptp(predictions) == 0 or np.ptp(targets) == 0:
        assert found is None
    else:
        assert found == pytest.approx(
            np.corrcoef(ranks(predictions), ranks(targets))[0, 1], abs=1e-9
        )


@given(arrays(float, (12, 2), elements=st.floats(-3, 3, width=32)))
def test_correlations_agree_with_numpy_and_stay_in_range(points: np.ndarray) -> None:
    predictions, targets = points.T
    r, agreement = metrics.pearson(predictions, targets), metrics.ccc(predictions, targets)
    json.dumps([r, agreement], allow_nan=False)
    if r is not None and min(predictions.std(), targets.std()) > 1e-3:
        assert r == pytest.approx(np.corrcoef(predictions, targets)[0, 1], abs=1e-9)
        assert abs(agreement) <= abs(r) + 1e-9, "CCC = r times a bias correction of at most 1"


def test_pearson_of_a_nearly_constant_predictor_is_still_its_r() -> None:
    targets = np.arange(8.0)
    assert metrics.pearson(0.3 + 1e-7 * targets, targets) == pytest.approx(1.0, abs=1e-6)


def test_bootstrap_matches_the_normal_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(2.0, 1.0, size=400)
    low, high = metrics.bootstrap(lambda v: float(v.mean()), values, seed=1, resamples=2000)
    margin = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - margin, abs=0.02)
    assert high == pytest.approx(values.mean() + margin, abs=0.02)


def test_bootstrap_draws_rows_together_and_repeats_with_its_seed() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert metrics.bootstrap(metrics.mae, values, values, seed=0) == (0.0, 0.0)
    shifted = values + np.linspace(0, 1, 30)
    first = metrics.bootstrap(metrics.mae, values, shifted, seed=3)
    assert first == metrics.bootstrap(metrics.mae, values, shifted, seed=3)
    assert first != metrics.bootstrap(metrics.mae, values, shifted, seed=4)


def test_bootstrap_is_none_where_the_metric_is_undefined() -> None:
    flat = np.ones(5)
    assert metrics.bootstrap(metrics.pearson, flat, np.arange(5.0), seed=0) is None
    assert metrics.bootstrap(metrics.mae, flat[:1], flat[:1], seed=0) is None
