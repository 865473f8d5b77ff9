"""Intervals over seeds, and changes paired by seed, by hand."""

from __future__ import annotations

import pytest

from benchmarks.intervals import changes, half_width, interval


def test_an_interval_by_hand():
    # Standard error 1 / sqrt(3) of 1, 2, 3; Student's t with two degrees of freedom is 4.303.
    assert interval([1.0, 2.0, 3.0]) == "2.000 ± 2.484"
    assert half_width([0.0, 1.0]) == pytest.approx(12.706 / 2, abs=1e-3)  # one degree of freedom
    assert half_width([4.0, 4.0, 4.0]) == 0


def test_one_value_has_no_interval():
    assert interval([0.5], sign="+") == "+0.500"
    assert half_width([0.5]) is None


def test_a_change_is_of_one_seed():
    base = [{"seed": 0, "r": 0.5}, {"seed": 1, "r": 0.75}, {"seed": 2, "r": None}]
    rows = [{"seed": 1, "r": 1.0}, {"seed": 0, "r": 0.5}, {"seed": 2, "r": 1.0}]
    assert changes(rows, base, "r") == [0.25, 0.0]  # no r in seed 2
    assert changes([{"seed": 3, "r": 1.0}], base, "r") == []
    assert changes([{"seed": 0, "r": None}], base, "r") == []
