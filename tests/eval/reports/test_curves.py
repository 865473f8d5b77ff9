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
    assert corners(*chart.lines) == [
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
        assert {y for _, y in corners(*chart.lines)} == {(TOP + HEIGHT - BOTTOM) / 2}
        assert len(chart.up) >= 2


def test_a_long_series_is_averaged_not_sampled() -> None:
    spike = [(step, 1000.0 if step == 777 else 0.0) for step in range(POINTS * 10)]
    chart = line_chart("spiky", spike)
    drawn = corners(*chart.lines)
    assert len(drawn) == POINTS
    assert drawn[77][1] == TOP, "the spike is still the highest point"
    assert {tick.label for tick in chart.up} >= {"0", "100"}, "10 points a bin"


def test_a_line_does_not_cross_the_steps_of_other_phases() -> None:
    """Two stages of a phase with another one between; and a phase of each third step."""
    stages = [*range(100), *range(300, 400)]
    chart = line_chart("loss", [(step, 1.0 + step) for step in stages])
    assert len(chart.lines) == 2
    first, second = map(corners, chart.lines)
    scale = (WIDTH - LEFT - RIGHT) / 399
    assert first[-1][0] == pytest.approx(LEFT + 99 * scale, abs=0.1)
    assert second[0][0] == pytest.approx(LEFT + 300 * scale, abs=0.1)
    alternating = [(step, 1.0) for step in range(0, 400, 3)]
    assert len(line_chart("loss", alternating).lines) == 1
    blocks = [(step, 1.0) for step in range(1000) if step % 200 < 100]
    assert len(line_chart("loss", blocks).lines) == 5
    long = [(step, float(step)) for step in [*range(5000), *range(20000, 25000)]]
    chart = line_chart("loss", long)
    assert [len(corners(line)) for line in chart.lines] == [POINTS / 2] * 2
    lonely = line_chart("loss", [*((step, 1.0) for step in range(100)), (900, 1.0)])
    assert [len(corners(line)) for line in lonely.lines] == [100, 1]


def test_rows_become_charts_by_phase(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written = [
        {"step": 1, "phase": "compress", "compress/loss": 2.0, "compress/lr": 1e-3},
        {"step": 2, "phase": "generate", "generate/loss": 0.9, "rank_ok": True},
        {"step": 3, "phase": "compress", "compress/loss": 1.0, "compress/lr": 1e-3, "peak": 3},
    ]
    for line in written:
        line["samples_per_s"] = 4.0
    written[0]["lr/understander"] = 1e-3
    written[2]["evaluate/accuracy"] = 0.5
    path.write_text("".join(json.dumps(line) + "\n" for line in written))
    curves = read_curves(path)
    found = {phase: [chart.title for chart in charts] for phase, charts in curves.phases.items()}
    assert found == {
        "compress": ["loss", "lr", "samples/s"],
        "generate": ["loss", "samples/s"],
        "learning rate": ["understander"],
        "held-out scores during training": ["accuracy"],
        "run": ["peak"],
    }
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
