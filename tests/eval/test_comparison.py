from __future__ import annotations

import io

import pytest
from rich.console import Console

from eval.comparison import SECTIONS, Row, rows
from eval.generation import GenerationScores
from eval.table import comparison_table
from eval.understanding import UnderstandingScores

REPORT = {
    "understanding": {
        "before": {"accuracy": 0.5, "v_mae": 1.0, "v_mae_mean": 1.2, "a_ccc": None},
        "after": {"accuracy": 0.75, "v_mae": 0.8, "v_mae_mean": 1.2, "a_ccc": None},
    },
    "generation": {
        "before": {"oracle_v_error": 1.0, "judge_v_error": 1.0, "diversity": None},
        "after": {"oracle_v_error": 1.5, "judge_v_error": 1.0, "diversity": 0.2},
    },
}


def row(better: str | None, before: float | None, after: float | None) -> Row:
    return Row(name="m", title="m", better=better, before=before, after=after)


@pytest.mark.parametrize(
    ("better", "before", "after", "verdict"),
    [
        ("higher", 0.1, 0.2, "better"),
        ("higher", 0.2, 0.1, "worse"),
        ("lower", 0.2, 0.1, "better"),
        ("lower", 0.1, 0.2, "worse"),
        ("lower", 0.1, 0.1, "same"),
        ("lower", 0.1, 0.1004, "same"),
        ("lower", 0.1, 0.1006, "worse"),
        (None, 0.1, 0.2, None),
        ("higher", None, 0.2, None),
        ("higher", 0.1, None, None),
    ],
)
def test_verdict_knows_the_direction(better, before, after, verdict) -> None:
    assert row(better, before, after).verdict == verdict


def test_rows_of_a_report() -> None:
    found = {r.name: r for r in rows(REPORT, "understanding")}
    assert list(found) == ["accuracy", "v_mae", "v_mae_mean"], "never measured: not shown"
    assert found["accuracy"].change == 0.25
    assert found["accuracy"].verdict == found["v_mae"].verdict == "better"
    assert found["v_mae_mean"].verdict is None
    found = {r.name: r for r in rows(REPORT, "generation")}
    assert [r.verdict for r in found.values()] == ["worse", "same", None]
    assert rows({}, "generation") == []
    only_after = rows({"generation": {"after": {"diversity": 0.2}}}, "generation")
    assert [(r.before, r.after) for r in only_after] == [(None, 0.2)]


def test_every_metric_shown_is_one_that_is_measured_and_errors_are_better_low() -> None:
    fields = {
        "understanding": UnderstandingScores.__dataclass_fields__,
        "generation": GenerationScores.__dataclass_fields__,
    }
    for section, metrics in SECTIONS.items():
        assert set(metrics) <= set(fields[section])
        for name, (_, better) in metrics.items():
            if name.endswith(("_error", "_mae")):
                assert better == "lower", name


def test_the_terminal_table_tells_better_from_worse() -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(comparison_table(REPORT))
    lines = console.file.getvalue().splitlines()

    def line(title: str) -> str:
        return next(text for text in lines if title in text)

    assert "0.500" in line("emotion accuracy")
    assert "0.750" in line("emotion accuracy")
    assert "+0.250" in line("emotion accuracy")
    assert "▲" in line("emotion accuracy")
    assert "−0.200" in line("valence MAE ")
    assert "▲" in line("valence MAE ")
    assert "▼" in line("valence error, oracle")
    assert "–" in line("diversity")


def test_a_report_that_measured_once_has_one_column() -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(comparison_table({"understanding": {"after": {"accuracy": 0.75}}}))
    text = console.file.getvalue()
    assert "0.750" in text
    assert "before" not in text
    assert "change" not in text
