"""Pearson's and Spearman's correlation of two series of N numbers.

An undefined correlation is None, never NaN. Both raise `ValueError` for arrays of unequal length
and for values that are not finite.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def pearson(predicted: NDArray, true: NDArray) -> float | None:
    """Return Pearson's r of two arrays [N] in [-1, 1]; None when N < 2 or one of them is constant.

    EEmo-Bench (arXiv 2504.16405) calls it PLCC.
    """
    check_arrays(predicted, true)
    if len(true) < 2 or np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return None
    import torch  # imported here, because listing the tasks must not load torchmetrics
    from torchmetrics.functional import pearson_corrcoef

    # r does not depend on shift and scale; standardised arrays avoid torchmetrics' lower bound on
    # variances.
    arrays = (torch.as_tensor(_standardised(values)) for values in (predicted, true))
    r = float(pearson_corrcoef(*arrays))
    return r if math.isfinite(r) else None


def spearman(predicted: NDArray, true: NDArray) -> float | None:
    """Return Spearman's ρ of two arrays [N] in [-1, 1]: Pearson's r of their ranks.

    Equal values share their mean rank. None when N < 2 or one of the arrays is constant. EEmo-Bench
    (arXiv 2504.16405) calls it SRCC.
    """
    check_arrays(predicted, true)
    return pearson(_ranks(predicted), _ranks(true))


def check_arrays(*arrays: NDArray) -> None:
    """Raise ValueError for arrays of unequal length, or with a value that is not finite."""
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise ValueError(f"arrays of unequal length: {sorted(lengths)}")
    for array in arrays:
        if not np.all(np.isfinite(array)):
            raise ValueError("an array has a value that is not finite")


def _ranks(values: NDArray) -> NDArray:
    """Return ranks from 1; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _standardised(values: NDArray) -> NDArray:
    values = values.astype(np.float64)
    return (values - values.mean()) / values.std()
