"""The table of a part of the symbiosis study, by hand, and what its plot shows."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from benchmarks.symbiosis.study import Part
from benchmarks.symbiosis.summary import plot, table


class Two(Part):
    """Two arms, one metric that is compared and one fact."""

    name = "two"
    question = "Which?"
    arms = ("first", "second")
    metrics = {"r": "valence r"}  # noqa: RUF012  as the parts of the study
    facts = {"steps": "steps"}  # noqa: RUF012

    def measure(self, study, arm, seed):
        raise NotImplementedError


def rows(second: list[float | None]):
    first = [{"arm": "first", "seed": n, "r": r, "steps": 3} for n, r in enumerate([0.1, 0.2, 0.3])]
    return first + [{"arm": "second", "seed": n, "r": r, "steps": 4} for n, r in enumerate(second)]


def test_changes_are_paired_and_bold_where_they_are_certain():
    # The seeds differ by 0.1, the change is 0.1, 0.11, 0.12: 4.303 x 0.01 / sqrt(3) = 0.025.
    assert table(Two(), rows([0.2, 0.31, 0.42])).splitlines() == [
        "|  | first | second |",
        "|---|---|---|",
        "| seeds | 3 | 3 |",
        "| steps | 3 | 4 |",
        "| valence r | 0.200 ± 0.248 | 0.310 ± 0.273 (**+0.110 ± 0.025**) |",
    ]
    # The changes 0.1, 0.1, -0.1: 4.303 x 0.1155 / sqrt(3) = 0.287.
    assert table(Two(), rows([0.2, 0.3, 0.2])).splitlines()[-1].endswith("(+0.033 ± 0.287) |")


def test_what_is_not_defined_is_left_out():
    last = table(Two(), rows([None, 0.3, 0.4])).splitlines()[-1]
    assert last == "| valence r | 0.200 ± 0.248 | 0.350 ± 0.635 (**+0.100 ± 0.000**) |"
    assert table(Two(), rows([None] * 3)).splitlines()[-1] == "| valence r | 0.200 ± 0.248 | – |"
    assert table(Two(), rows([])).splitlines()[-1] == "| valence r | 0.200 ± 0.248 | – |"


@pytest.mark.parametrize("second", [[0.2, 0.3, 0.4], [None] * 3, [0.2], []])
def test_a_plot_is_a_picture_that_shows_the_rows(second):
    shown = Image.open(io.BytesIO(plot(Two(), rows(second))))
    assert shown.format == "PNG"
    assert min(shown.size) > 100
    other = Image.open(io.BytesIO(plot(Two(), rows([0.9, 0.9, 0.95]))))
    assert shown.tobytes() != other.tobytes()


def test_panels_without_a_metric_are_not_drawn():
    class Five(Two):
        metrics = dict.fromkeys("rstuv", "r")

    five = [row | dict.fromkeys("stuv", row["r"]) for row in rows([0.2, 0.3, 0.4])]
    shown = Image.open(io.BytesIO(plot(Five(), five))).convert("L")
    width, height = shown.size
    for left, upper, is_drawn in ((0, 0, True), (0.5, 0, True), (0, 0.6, True), (0.5, 0.6, False)):
        box = (int(left * width), int(upper * height), width if left else width // 3, height)
        assert (shown.crop(box).getextrema()[0] < 255) == is_drawn
