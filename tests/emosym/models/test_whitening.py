from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from emosym.models.whitening import FLOOR, Whitening

D = 12


def states(count: int = 400, seed: int = 0) -> Tensor:
    """Return correlated states [count, 3, D] whose deviations span a factor of ten."""
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.linalg.qr(torch.randn(D, D, generator=rng))[0]
    scales = torch.logspace(0, -1, D)
    return 5 + torch.randn(count, 3, D, generator=rng) * scales @ mixing


def test_before_it_is_fitted_it_changes_nothing():
    rows = states(4)
    assert torch.equal(Whitening(D)(rows), rows)


def test_fitted_states_are_uncorrelated_with_variance_one():
    whitening = Whitening(D)
    rows = states()
    whitening.fit(rows)
    white = whitening(rows).flatten(0, 1).double().numpy()
    variances = np.linalg.eigvalsh(np.cov(rows.flatten(0, 1).double().numpy().T, ddof=0))
    kept = variances / (variances + FLOOR * variances.mean())
    assert np.abs(white.mean(0)).max() < 1e-5
    found = np.cov(white.T, ddof=0)
    assert np.allclose(np.linalg.eigvalsh(found), np.sort(kept), atol=1e-4)
    assert kept.min() > 0.95
    assert np.abs(found - np.eye(D)).max() < 0.05


def test_it_turns_as_little_as_possible():
    """ZCA: the matrix is symmetric and positive."""
    whitening = Whitening(D)
    whitening.fit(states())
    assert torch.allclose(whitening.matrix, whitening.matrix.T, atol=1e-5)
    assert torch.linalg.eigvalsh(whitening.matrix.double()).min() > 0


def test_noise_is_not_made_a_signal():
    """A direction without variance is scaled by no more than 1 / √(floor · mean variance)."""
    rows = states()
    rows[..., 0] = 2.0
    whitening = Whitening(D)
    whitening.fit(rows)
    bound = (FLOOR * rows.flatten(0, 1).double().var(0, unbiased=False).mean()).rsqrt().item()
    step = torch.zeros(1, 1, D)
    step[..., 0] = 1.0
    gain = (whitening(rows[:1, :1] + step) - whitening(rows[:1, :1])).norm().item()
    assert gain == pytest.approx(bound, rel=1e-3)


@pytest.mark.parametrize("count", [0, 1])
def test_states_without_a_variance(count):
    """No state leaves it as it was; one state has no direction that varies."""
    whitening = Whitening(D)
    rows = states(count)[:, :1]
    whitening.fit(rows)
    assert torch.equal(whitening.matrix, torch.eye(D))
    assert torch.equal(whitening.mean, rows[0, 0] if count else torch.zeros(D))
