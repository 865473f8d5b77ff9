"""Vendi scores by hand; the stopping rule at its bounds."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from emosym.errors import UserError
from memory_bank import AdmissionPolicy, Decision, MemoryBank, stop_reason, vendi
from memory_bank.admission.diversity import MIN_IMAGES, WINDOW, diversity
from tests.memory_bank.make import MODEL, candidate

DIM = 8


@pytest.fixture
def bank(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        yield bank


def test_vendi_by_hand():
    assert vendi(np.eye(5)) == pytest.approx(5)
    assert vendi(np.ones((7, 3))) == pytest.approx(1)
    assert vendi(np.eye(4)[[0, 0, 1, 1]]) == pytest.approx(2)
    # Cosine c between two: eigenvalues (1 + c) / 2 and (1 - c) / 2. At c = 0.6: 0.8 and 0.2.
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    assert vendi(np.array([[1, 0], [0.6, 0.8]])) == pytest.approx(np.exp(entropy))


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 6))
def test_vendi_is_that_of_the_kernel(seed: int, count: int, dim: int):
    """Against its definition, whatever the lengths and the order of the vectors."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dim))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh(units @ units.T / count)
    shares = shares[shares > 1e-12]
    expected = np.exp(-(shares * np.log(shares)).sum())
    lengths = rng.uniform(0.1, 9, size=(count, 1))
    assert vendi(rng.permutation(rows * lengths)) == pytest.approx(expected)
    assert 1 - 1e-9 <= expected <= min(count, dim) + 1e-9


def fill(bank: MemoryBank, source: str, vectors: np.ndarray, first: int) -> None:
    bank.add(
        [candidate(first + n, source=source, embedding=vector) for n, vector in enumerate(vectors)]
    )


def test_diversity_is_about_what_differs_and_as_many_of_each(bank):
    """All cosines are above 0.99, and still half the directions are half the diversity."""
    rng, far = np.random.default_rng(0), np.full(DIM, 50.0)
    real = np.concatenate([np.eye(DIM), -np.eye(DIM)])
    fill(bank, "real", far + np.tile(real, (12, 1)) + 1e-3 * rng.normal(size=(192, DIM)), 0)
    assert diversity(bank) is None
    few = np.concatenate([np.eye(DIM)[:4], -np.eye(DIM)[:4]])
    fill(bank, "synthetic", far + np.tile(few, (8, 1)) + 1e-3 * rng.normal(size=(64, DIM)), 500)
    assert len(bank.entries(source="synthetic")) == MIN_IMAGES
    real_score, score = diversity(bank)
    assert real_score == pytest.approx(DIM, rel=0.1)
    assert score == pytest.approx(DIM / 2, rel=0.1)
    assert stop_reason(bank, AdmissionPolicy(max_diversity_loss=0.6)) is None
    assert stop_reason(bank, AdmissionPolicy(max_diversity_loss=0.4)) == (
        f"synthetic images have a Vendi score of {score:.1f}, more than 40% below the"
        f" {real_score:.1f} of as many real ones"
    )
    bank.remove([entry.id for entry in bank.entries(source="synthetic")][:1])
    assert stop_reason(bank, AdmissionPolicy()) is None  # too few to tell, again


def pool(bank: MemoryBank, entered: int, refused: int, first: int) -> None:
    """Record a pool of training; vectors are as diverse as those of real images."""
    bank.record(
        [
            Decision(
                candidate=candidate(first + n, source="synthetic", step=1),
                admitted=n < entered,
                reason="",
            )
            for n in range(entered + refused)
        ]
    )


def test_the_admission_rate_has_a_band(tmp_path):
    policy = AdmissionPolicy(max_diversity_loss=1)
    endless = AdmissionPolicy(max_diversity_loss=1, min_admission_rate=0, max_admission_rate=1)
    for name, entered, reason in (
        ("low", 2, "2 of the last 256 candidates entered, outside 1% to 60%"),
        ("least", 3, None),
        ("most", 153, None),
        ("high", 154, "154 of the last 256 candidates entered, outside 1% to 60%"),
    ):
        with MemoryBank.create(tmp_path / name, 16, MODEL) as bank:
            pool(bank, entered, WINDOW - 1 - entered, 0)
            assert stop_reason(bank, policy) is None  # one is missing
            pool(bank, 0, 1, 1000)
            assert stop_reason(bank, policy) == reason
            assert stop_reason(bank, endless) is None


def test_the_rate_is_that_of_the_last_pools_and_of_training_alone(tmp_path):
    with MemoryBank.create(tmp_path / "bank", 16, MODEL) as bank:
        pool(bank, 0, 300, 0)
        policy = AdmissionPolicy(max_diversity_loss=1)
        assert stop_reason(bank, policy) == (
            "0 of the last 300 candidates entered, outside 1% to 60%"
        )
        bank.add([candidate(2001 + 2 * n) for n in range(100)])  # synthetic, of no step
        assert stop_reason(bank, policy) is not None
        pool(bank, 30, 226, 5000)
        assert stop_reason(bank, policy) is None
        bank.rollback(2)
        assert stop_reason(bank, policy) is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_diversity_loss": 1.1}, "max_diversity_loss; got 1.1; expected a share"),
        (
            {"min_admission_rate": 0.6, "max_admission_rate": 0.1},
            "min_admission_rate; got 0.6; expected a share of at most max_admission_rate",
        ),
        ({"min_admission_rate": -0.1}, "min_admission_rate; got -0.1"),
        ({"max_admission_rate": 1.1}, "max_admission_rate; got 1.1; expected a share"),
    ],
)
def test_a_stopping_rule_out_of_range_is_refused(values: dict, message: str):
    with pytest.raises(UserError, match=message):
        AdmissionPolicy(**values)
