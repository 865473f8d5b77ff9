"""Metrics as pure functions on arrays; None where a metric is undefined, never NaN.

Legend: N samples, Y classes, H W image height/width. Values may be on any scale; errors come back
in its units. Every function raises `ValueError` on arrays of unequal length or non-finite values.
torch and torchmetrics are imported where they are used, so that listing the tasks stays fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emosym.affect.correlation import check_arrays
from emosym.affect.correlation import pearson as pearson
from emosym.affect.correlation import spearman as spearman
from emosym.tasks.base import Answered, Measure, Metric, Reward


def accuracy(predicted: NDArray, true: NDArray) -> float | None:
    """Return the share of equal entries of two class arrays [N]; None when N = 0."""
    check_arrays(predicted, true)
    return float(np.mean(predicted == true)) if len(true) else None


def macro_f1(predicted: NDArray, true: NDArray, classes: int) -> float | None:
    """Return the unweighted mean F1 over the classes that occur; None when N = 0.

    `predicted`, `true`: class indices [N] in 0..classes-1; `predicted` is `classes` where there is
    no prediction. A class that is neither predicted nor true in these N has no F1 and is left out
    of the mean; one that is only predicted, or only true, counts as 0. This is scikit-learn's
    default for `average="macro"`.

    Ref: Opitz & Burst 2019, arXiv 1911.03347, eq. 1 (mean of F1, not F1 of means).
    """
    check_arrays(predicted, true)
    if not len(true):
        return None
    import torch
    from torchmetrics.functional.classification import multiclass_f1_score

    each = multiclass_f1_score(
        torch.as_tensor(predicted), torch.as_tensor(true), num_classes=classes + 1, average="none"
    )
    occurs = [*{*predicted.tolist(), *true.tolist()} - {classes}]
    return float(each[occurs].mean())


def confusion_matrix(predicted: NDArray, true: NDArray, classes: int) -> NDArray:
    """Return counts [Y, Y]: row = true class, column = predicted class."""
    check_arrays(predicted, true)
    if not len(true):
        return np.zeros((classes, classes), dtype=np.int64)
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    return multiclass_confusion_matrix(
        torch.as_tensor(predicted), torch.as_tensor(true), num_classes=classes
    ).numpy()


def mae(predicted: NDArray, true: NDArray) -> float | None:
    """Return the mean absolute error of two arrays [N]; None when N = 0.

    Ref: V-Error and A-Error of arXiv 2501.05710 (EmotiCrafter), section 4.2, are this on [-3, 3].
    """
    check_arrays(predicted, true)
    return float(np.mean(np.abs(predicted - true))) if len(true) else None


def ccc(predicted: NDArray, true: NDArray) -> float | None:
    """Return Lin's concordance correlation of two arrays [N]: agreement in scale and mean as well.

    2·cov / (var + var + (mean − mean)²), with moments over N. In [-1, 1]. None when N < 2 or when
    both are constant; 0 when only one is. torchmetrics mixes moments over N − 1 with the squared
    difference of means, which is not Lin's estimator.

    Ref: Lin 1989, Biometrics 45(1), eq. for ρ̂_c.
    """
    check_arrays(predicted, true)
    if len(true) < 2 or (np.ptp(predicted) == 0 and np.ptp(true) == 0):
        return None
    predicted, true = predicted.astype(np.float64), true.astype(np.float64)
    gap = predicted.mean() - true.mean()
    covariance = np.mean((predicted - predicted.mean()) * (true - true.mean()))
    return float(2 * covariance / (predicted.var() + true.var() + gap**2))


def mean(values: NDArray) -> float | None:
    """Return the mean of an array [N]; None when N = 0."""
    check_arrays(values)
    return float(np.mean(values)) if len(values) else None


def mean_reward(reward: Reward, answered: Answered) -> Measure:
    """Return the mean of a reward over the questions that it applies to, with its array."""
    return mean, np.array([reward.score(a, q) for q, a in answered if reward.applies(q)])


def chrf(texts: Sequence[str], references: Sequence[str]) -> NDArray:
    """Return chrF of each text to its reference, [N] in [0, 1]: F2 of character 1- to 6-grams.

    Ref: Popović 2015, chrF: character n-gram F-score for automatic MT evaluation (W15-3049).
    """
    if not texts:
        return np.empty(0)
    from torchmetrics.functional.text import chrf_score

    _, each = chrf_score(
        list(texts),
        [[reference] for reference in references],
        n_word_order=0,
        return_sentence_level_score=True,
    )
    return each.double().numpy()


def bootstrap(
    metric: Metric, *arrays: NDArray, seed: int, resamples: int = 500, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of `metric(*arrays)` at confidence `level`.

    Rows of all arrays [N] are drawn together with replacement. Draws where the metric is undefined
    are left out; None when N < 2 or when it is undefined on more than half of the draws.

    Ref: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    check_arrays(*arrays)
    count = len(arrays[0])
    if count < 2:
        return None
    generator = np.random.default_rng(seed)
    draws = generator.integers(count, size=(resamples, count))
    values = [metric(*(array[rows] for array in arrays)) for rows in draws]
    defined = [value for value in values if value is not None]
    if len(defined) * 2 < resamples:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
