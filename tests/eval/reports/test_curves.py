from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.reports.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    POINTS,
    RIGHT,
    TOP,
    WIDTH,
    line_chart,
    read_curves,
)


def corners(points: str) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in points.split()]


def test_a_line_fills_its_frame_and_goes_down_when_the_loss_does() -> None:
    chart = line_chart("loss", [(10, 4.0), (20, 3.0), (30, 2.0)])
    assert corners(chart.points) == [
        (LEFT, TOP),
        ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2),
        (WIDTH - RIGHT, HEIGHT - BOTTOM),
    ]
    assert chart.last == 2.0
    heights = {tick.label: tick.at for tick in chart.up}
    assert heights["4"] == TOP
    assert heights["2"] == HEIGHT - BOTTOM
    assert [tick.label for tick in chart.across if tick.at == WIDTH - RIGHT] == ["30"]


def test_one_point_and_a_flat_line_have_an_axis() -> None:
    for points in ([(5, 0.0)], [(1, 2.0), (9, 2.0)]):
        chart = line_chart("flat", points)
        assert {y for _, y in corners(chart.points)} == {(TOP + HEIGHT - BOTTOM) / 2}
        assert len(chart.up) >= 2


def test_a_long_series_is_averaged_not_sampled() -> None:
    spike = [(step, 1000.0 if step == 777 else 0.0) for step in range(POINTS * 10)]
    chart = line_chart("spiky", spike)
    drawn = corners(chart.points)
    assert len(drawn) == POINTS
    assert drawn[77][1] == TOP, "the spike is still the highest point"
    assert {tick.label for tick in chart.up} >= {"0", "100"}, "10 points a bin"


def test_rows_become_charts_by_phase(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written = [
        {"step": 1, "phase": "compress", "compress/loss": 2.0, "compress/lr": 1e-3},
        {"step": 2, "phase": "generate", "generate/loss": 0.9, "rank_ok": True},
        {"step": 3, "phase": "compress", "compress/loss": 1.0, "compress/lr": 1e-3, "peak": 3},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in written))
    curves = read_curves(path)
    found = {phase: [chart.title for chart in charts] for phase, charts in curves.phases.items()}
    assert found == {"compress": ["loss", "lr"], "generate": ["loss"], "run": ["peak"]}
    assert curves.notes == []
    assert curves.phases["compress"][0].last == 1.0


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "a/loss": 1.0}\n{"step": 2, "a/loss": NaN}\n{"a/loss": 1.0}\n{"step": 3, "a/l'
    )
    curves = read_curves(path)
    assert curves.notes == [
        "metrics.jsonl:2: a/loss is nan, left out",
        "metrics.jsonl:3: not a row of metrics, left out",
        "metrics.jsonl:4: not a row of metrics, left out",
    ]
    assert curves.phases["a"][0].last == pytest.approx(1.0)
    assert read_curves(tmp_path / "missing.jsonl").phases == {}
