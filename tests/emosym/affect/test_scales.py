from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emosym.affect.scales import PUBLIC, SAM7, SAM9, UNIT, Affect, Scale
from emosym.errors import UserError

SIGNED, TEN, PERCENT = Scale(-1.0, 1.0), Scale(1.0, 10.0), Scale(0.0, 100.0)
SCALES = [PUBLIC, UNIT, SIGNED, SAM7, SAM9, TEN, PERCENT]


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (1.0, SAM7, PUBLIC, -3.0),
        (4.0, SAM7, PUBLIC, 0.0),
        (7.0, SAM7, PUBLIC, 3.0),
        (5.0, SAM9, PUBLIC, 0.0),
        (7.0, SAM9, PUBLIC, 1.5),
        (25.0, PERCENT, SIGNED, -0.5),
        (5.5, TEN, UNIT, 0.5),
        (-3.0, PUBLIC, PERCENT, 0.0),
    ],
)
def test_conversion_by_hand(value, source, target, expected):
    assert source.convert(value, target) == pytest.approx(expected)


@given(st.sampled_from(SCALES), st.sampled_from(SCALES), st.floats(0, 1), st.floats(0, 1))
def test_conversion_round_trips_and_keeps_order(one, other, low, high):
    low, high = sorted((low, high))
    values = [one.low + share * (one.high - one.low) for share in (low, high)]
    there = [one.convert(value, other) for value in values]
    assert there[0] <= there[1]
    assert other.convert(there[0], one) == pytest.approx(values[0], abs=1e-9)
    assert other.low - 1e-9 <= there[0] <= other.high + 1e-9


def test_a_scale_checks_its_values():
    assert PUBLIC.check(3, "valence") == 3.0
    for value in (3.01, -4, math.nan, math.inf, 10**400):
        with pytest.raises(UserError, match=r"arousal is outside its scale; got .*\[-3, 3\]"):
            PUBLIC.check(value, "arousal")
    with pytest.raises(ValueError, match=r"low < high, got \[2, 2\]"):
        Scale(2, 2)


def test_a_point_knows_its_scale():
    point = Affect(7, 1, SAM7)
    assert point.to(PUBLIC) == Affect(3, -3, PUBLIC)
    assert Affect(1, 2).distance(Affect(-1, 1.5)) == 2.5
    with pytest.raises(ValueError, match=r"mixed affect scales \[-3, 3\] and \[1, 7\]"):
        Affect(1, 2).distance(point)
    with pytest.raises(UserError, match="valence is outside its scale; got 8"):
        Affect(8, 1, SAM7)


def test_errors_distance_and_nearness_by_hand():
    one, other = Affect(1, 2), Affect(-1, 1.5)
    assert one.errors(other) == (2.0, 0.5)
    assert Affect(1.5, -2.0).errors(Affect(-0.5, 1.0)) == (2.0, 3.0)
    assert one.nearness(other) == pytest.approx(1 - 2.5 / 12)
    assert one.nearness(one) == 1
    assert Affect(3, -3).nearness(Affect(-3, 3)) == 0
    assert Affect(0, 1, UNIT).nearness(Affect(1, 1, UNIT)) == 0.5
    with pytest.raises(ValueError, match="mixed affect scales"):
        one.nearness(Affect(0, 0, UNIT))


def test_two_numbers_are_a_point_together_or_not_at_all():
    assert Affect.optional(None, None) is None
    assert Affect.optional(0.0, 1.0, UNIT) == Affect(0, 1, UNIT)
    for half in ((1.0, None), (None, 1.0)):
        with pytest.raises(UserError, match="valence and arousal go together; give both"):
            Affect.optional(*half)
    with pytest.raises(UserError, match="arousal is outside its scale; got nan"):
        Affect.optional(0.0, math.nan)


def test_a_prediction_is_checked_only_where_it_has_to_be():
    away = Affect.unchecked(4.0, -1.0)
    assert (away.coordinates, away.scale) == ((4.0, -1.0), PUBLIC)
    assert away.distance(Affect(1, 1)) == 5.0
    assert Affect.unchecked(1.0, -1.0) == Affect(1, -1)
    unknown = Affect.unchecked(0.0, math.nan)
    assert math.isnan(unknown.distance(Affect(0, 0)))
    for point, problem in ((away, "valence is outside.*got 4.0"), (unknown, "arousal.*got nan")):
        with pytest.raises(UserError, match=problem):
            point.check()
        with pytest.raises(UserError, match=problem):
            Affect(*point.coordinates)
    assert Affect(1, 2).check() is None
