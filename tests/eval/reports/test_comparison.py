from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest
from rich.console import Console

from emosym.records import Question
from emosym.tasks.registry import TASKS
from eval.generation.measure import GenerationScores
from eval.reports.comparison import (
    COMMON_METRICS,
    SECTIONS,
    Row,
    rows,
    tables,
    task_metrics,
    task_rows,
)
from eval.reports.table import comparison_table
from eval.tasks.measure import score_answers
from eval.tasks.understanding import UnderstandingScores

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


TASK_REPORT = {
    "tasks": {
        "before": {"valence": {"count": 9, "mae": 0.3, "srcc": None}, "ranking": {"score": 0.4}},
        "after": {
            "ranking": {"score": 0.6, "intervals": {"score": (0.5, 0.7)}},
            "valence": {"count": 9, "mae": 0.2, "srcc": None, "answered": 1.0},
        },
    }
}


def test_rows_of_tasks() -> None:
    found = {row.name: row for row in task_rows(TASK_REPORT)}
    assert list(found) == ["ranking/score", "valence/mae", "valence/answered"]
    assert found["ranking/score"].title == "ranking: ranking score"
    assert found["ranking/score"].after_interval == (0.5, 0.7)
    assert [row.verdict for row in found.values()] == ["better", "better", None]
    assert tables(TASK_REPORT) == {
        "understanding": [],
        "generation": [],
        "tasks": list(found.values()),
    }
    assert tables(REPORT)["tasks"] == []


def every_question() -> list[Question]:
    """Return questions of every task, about one image and two, of every aspect."""
    truth = {
        **{"emotion": "awe", "valence": 0.0, "arousal": 0.0, "dominance": 0.0, "answer": "A"},
        **{"emotion ranking": ("awe", "fear", "anger"), "dominant emotion": "awe"},
        **{"description": "Awe.", "suggestions": ("fog",), "prompt": "a cat in fog"},
    }
    kinds = itertools.product(
        TASKS,
        (1, 2),
        (("yes", "no"), ("low", "high")),
        ("emotion", "valence", "arousal", "dominance"),
    )
    return [
        Question(
            id=f"q{number}",
            task=task,
            images=(Path("a.png"),) * count,
            split="test",
            text="?",
            truth=truth,
            options=dict(zip("AB", kind, strict=True)),
            aspect=aspect,
        )
        for number, (task, count, kind, aspect) in enumerate(kinds)
    ]


def test_every_metric_of_a_task_is_shown_and_errors_are_better_low() -> None:
    questions = every_question()
    scores = score_answers(questions, [""] * len(questions), seed=0, resamples=2)
    for task, one in scores.items():
        assert set(one.metrics) == {*TASKS[task].metrics, *COMMON_METRICS}, task
        for name, (_, better) in task_metrics(task).items():
            assert better == ("lower" if name.endswith("mae") else "higher"), name


def test_the_terminal_table_shows_tasks() -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(comparison_table(TASK_REPORT))
    (line,) = [x for x in console.file.getvalue().splitlines() if "valence: MAE" in x]
    assert "−0.100" in line
    assert "▲" in line


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


def test_a_report_without_measures_has_no_row() -> None:
    assert comparison_table({"setting": {"seed": 0}}).row_count == 0


def test_a_report_that_measured_once_has_one_column() -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(comparison_table({"understanding": {"after": {"accuracy": 0.75}}}))
    text = console.file.getvalue()
    assert "0.750" in text
    assert "before" not in text
    assert "change" not in text
