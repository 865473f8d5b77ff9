from __future__ import annotations

import numpy as np
import pytest

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.inference.sweep import AXES, Sweep, axis_values, sweep
from emosym.records import ImageRequest, Understanding


def seen(valence: float, arousal: float) -> Understanding:
    return Understanding(
        emotion="awe",
        probabilities=dict.fromkeys(MIKELS8, 1 / 8),
        affect=Affect(valence, arousal),
        text="",
    )


def test_values_go_from_end_to_end() -> None:
    assert axis_values(2) == (-3.0, 3.0)
    assert axis_values(5) == (-3.0, -1.5, 0.0, 1.5, 3.0)
    assert axis_values(6) == (-3.0, -1.8, -0.6, 0.6, 1.8, 3.0), "as people write them"
    with pytest.raises(UserError, match="too few points to sweep an axis; got 1"):
        axis_values(1)


def test_an_axis_that_is_not_swept_stays() -> None:
    assert sweep("valence", 3).points == [Affect(-3, 0), Affect(0, 0), Affect(3, 0)]
    assert sweep("arousal", 2, valence=1.5).points == [Affect(1.5, -3), Affect(1.5, 3)]
    corners = [Affect(-3, -3), Affect(3, -3), Affect(-3, 3), Affect(3, 3)]
    assert sweep("plane", 2).points == corners
    asked = sweep("arousal", 2, valence=1.5).requests(ImageRequest(prompt="a boat", emotion="awe"))
    assert asked == [
        ImageRequest(prompt="a boat", emotion="awe", affect=Affect(1.5, arousal))
        for arousal in (-3.0, 3.0)
    ]


@pytest.mark.parametrize(
    ("over", "given", "problem"),
    [
        (
            "valence",
            {"valence": 1.0},
            "valence is swept and takes no value; got valence 1; leave it out",
        ),
        ("plane", {"arousal": 0.0}, "arousal is swept and takes no value; got arousal 0"),
        ("valence", {"arousal": 3.5}, "arousal is outside its scale; got 3.5"),
    ],
)
def test_a_contradiction_is_an_error(over: str, given: dict, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        sweep(over, 5, **given)


def test_a_line_differs_in_one_axis_alone() -> None:
    plane = Sweep(valences=(-1.0, 0.0, 1.0), arousals=(-2.0, 2.0))
    assert plane.lines("valence") == [[0, 1, 2], [3, 4, 5]]
    assert plane.lines("arousal") == [[0, 3], [1, 4], [2, 5]]
    for place, axis in enumerate(AXES):
        for line in plane.lines(axis):
            moving = [plane.points[i].coordinates[place] for i in line]
            still = {plane.points[i].coordinates[1 - place] for i in line}
            assert moving == sorted(moving)
            assert len(still) == 1
    assert sweep("valence", 3).lines("arousal") == []


def test_each_swept_axis_is_measured_along_its_own_lines() -> None:
    plane = sweep("plane", 3)
    # Valence is followed in every row; arousal is followed in two columns, reversed in the third.
    points = [point.coordinates for point in plane.points]
    judged = [seen(v / 2, -a if v == 3 else a) for v, a in points]
    pixels = np.array([np.full((2, 2, 3), (v + 3) / 6) for v, _ in points])
    found = plane.continuity(judged, pixels, np.ones((9, 2)))
    assert found["valence"].spearman == pytest.approx(1)
    assert found["arousal"].spearman == pytest.approx((1 + 1 - 1) / 3)
    assert found["valence"].colour_step == pytest.approx(0.5)
    assert found["arousal"].colour_step == 0
    assert list(sweep("arousal", 3).continuity(judged[:3], pixels[:3], np.ones((3, 2)))) == [
        "arousal"
    ]


def test_a_strip_lies_whatever_is_swept() -> None:
    assert [name for name, _ in sweep("valence", 3).labels] == ["valence", "arousal"]
    assert [name for name, _ in sweep("plane", 3).labels] == ["valence", "arousal"]
    across, up = sweep("arousal", 3, valence=1).labels
    assert (across, up) == (("arousal", (-3.0, 0.0, 3.0)), ("valence", (1.0,)))
