from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest
from rich.console import Console

from emosym.affect.scales import Affect
from emosym.records import Question, Sample, Understanding
from emosym.tasks.registry import TASKS
from eval.generation.measure import GenerationScores
from eval.reports.comparison import (
    COMMON_METRICS,
    SECTIONS,
    Row,
    check_report,
    rows,
    tables,
    task_metrics,
    task_rows,
    with_changes,
)
from eval.reports.table import comparison_table
from eval.tasks.measure import score_answers
from eval.tasks.understanding import UnderstandingScores, evaluate_understanding

REPORT = {
    "understanding": {
        "before": {"accuracy": 0.5, "v_mae": 1.0, "v_mae_mean": 1.2, "a_ccc": None},
        "after": {
            "accuracy": 0.75,
            "v_mae": 0.8,
            "v_mae_mean": 1.2,
            "a_ccc": None,
            "changes": {"accuracy": (0.1, 0.4), "v_mae": (-0.3, -0.1)},
        },
    },
    "generation": {
        "before": {"oracle_v_error": 1.0, "judge_v_error": 1.0, "diversity": None},
        "after": {
            "oracle_v_error": 1.5,
            "judge_v_error": 1.0,
            "diversity": 0.2,
            "changes": {"oracle_v_error": (0.4, 0.6), "judge_v_error": (0, 0)},
        },
    },
}


@pytest.mark.parametrize(
    ("better", "before", "after", "interval", "verdict"),
    [
        ("higher", 0.1, 0.2, (0.05, 0.15), "better"),
        ("higher", 0.2, 0.1, (-0.15, -0.05), "worse"),
        ("lower", 0.2, 0.1, (-0.15, -0.05), "better"),
        ("lower", 0.1, 0.2, (0.05, 0.15), "worse"),
        ("lower", 0.1, 0.2, (-0.05, 0.25), "unsure"),
        ("higher", 0.1, 0.2, (0.0, 0.2), "unsure"),
        ("higher", 0.438, 0.5, None, "unsure"),
        ("lower", 0.1, 0.1, None, "same"),
        ("lower", 0.1, 0.1004, (0.0003, 0.0005), "same"),
        ("lower", 0.1, 0.1006, (0.0005, 0.0007), "worse"),
        (None, 0.1, 0.2, None, None),
        ("higher", None, 0.2, None, None),
        ("higher", 0.1, None, None, None),
    ],
)
def test_verdict_knows_the_direction_and_the_interval(
    better, before, after, interval, verdict
) -> None:
    row = Row(
        name="m", title="m", better=better, before=before, after=after, change_interval=interval
    )
    assert row.verdict == verdict


def measured(right: int, count: int) -> dict:
    """Return scores of `count` images of which the first are right."""
    names = "amusement", "awe"
    samples = [
        Sample(id=f"image {n}", image=Path("a.png"), split="test", emotion=names[0])
        for n in range(count)
    ]

    class Model:
        def understand(self, images, *, answer=True):
            return [
                Understanding(
                    emotion=names[n >= right],
                    probabilities={},
                    affect=Affect(0.0, 0.0),
                    text="",
                )
                for n in range(len(images))
            ]

    return evaluate_understanding(Model(), samples, resamples=2).to_dict()


@pytest.mark.parametrize(
    ("count", "before", "after", "verdict"),
    [
        (16, 7, 8, "unsure"),  # one image of 16: +0.062
        (30, 14, 15, "unsure"),
        (9, 0, 9, "unsure"),  # too few, whatever happened
        (16, 2, 14, "better"),
        (16, 14, 2, "worse"),
        (16, 7, 7, "same"),
    ],
)
def test_one_image_is_not_a_change(count, before, after, verdict) -> None:
    scores = {"before": measured(before, count), "after": measured(after, count)}
    report = with_changes({"understanding": scores})
    (row,) = [row for row in rows(report, "understanding") if row.name == "accuracy"]
    assert row.verdict == verdict
    check_report(json.loads(json.dumps(report)))
    assert report["understanding"].keys() == {"before", "after"}


def test_without_items_a_change_is_unsure() -> None:
    report = with_changes(REPORT)
    assert {r.verdict for section in SECTIONS for r in rows(report, section)} <= {
        "unsure",
        "same",
        None,
    }


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
            "ranking": {
                "score": 0.6,
                "intervals": {"score": (0.5, 0.7)},
                "changes": {"score": (0.1, 0.3)},
            },
            "valence": {
                "count": 9,
                "mae": 0.2,
                "srcc": None,
                "answered": 1.0,
                "changes": {"mae": (-0.2, -0.01)},
            },
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
    assert "▲ better" in line


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
