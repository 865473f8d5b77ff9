"""`python -m eval compare`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emosym.errors import UserError
from eval.commands.compare import read_report
from eval.reports.comparison import side_by_side, tables

ROOT = Path(__file__).resolve().parents[3]
ONCE = {
    "model": "a",
    "understanding": {"after": {"accuracy": 0.5, "v_mae": 1.0, "intervals": {"v_mae": [0.9, 1.1]}}},
    "tasks": {"after": {"valence": {"count": 9, "mae": 0.3, "well_formed": 1.0}}},
}
TRAINED = {
    "understanding": {
        "before": {"accuracy": 0.9, "v_mae": 0.1},
        "after": {"accuracy": 0.75, "v_mae": 1.5},
    },
    "tasks": {"after": {"valence": {"count": 9, "mae": 0.2}, "own": {"count": 2, "score": 0.5}}},
}

HUGE = {"metric": "mean", "options": {}, "rows": [[1e308]]}


def compare(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "eval", "compare", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )


def write(path: Path, report: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report))
    return path


def test_the_last_measurement_of_each_report_counts() -> None:
    found = {row.name: row for rows in tables(side_by_side(ONCE, TRAINED)).values() for row in rows}
    assert (found["accuracy"].before, found["accuracy"].after) == (0.5, 0.75)
    assert found["accuracy"].verdict == "unsure", "the reports have no items to pair"
    assert found["v_mae"].verdict == found["valence/mae"].verdict == "unsure"
    assert found["valence/well_formed"].after is None
    assert (found["own/score"].title, found["own/score"].verdict) == ("own: score", None)
    unchanged = {"understanding": {"before": {"accuracy": 0.4}}}
    rows = tables(side_by_side(unchanged, unchanged))["understanding"]
    assert [(row.before, row.verdict) for row in rows] == [(0.4, "same")]


def test_two_reports_as_json_and_as_a_table(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "report.json", ONCE)
    second = write(tmp_path / "b" / "report.json", TRAINED)
    done = compare(first.parent, second, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["first"], found["second"]) == (str(first.parent), str(second))
    metrics = {(one["section"], one["name"]): one for one in found["metrics"]}
    assert metrics["understanding", "v_mae"] == {
        "section": "understanding",
        "name": "v_mae",
        "title": "valence MAE",
        "better": "lower",
        "first": 1.0,
        "second": 1.5,
        "first_interval": [0.9, 1.1],
        "second_interval": None,
        "change": 0.5,
        "change_interval": None,
        "verdict": "unsure",
    }
    assert ("tasks", "valence/mae") in metrics
    done = compare(first, second)
    assert done.returncode == 0, done.stderr
    for text in ("first", "second", "valence: MAE", "−0.100", "? unsure"):
        assert text in done.stdout


def test_reports_of_the_same_items_are_paired(tmp_path: Path) -> None:
    def report(errors: list[float]) -> dict:
        rows = [[error, 0.0] for error in errors]
        mae = {"metric": "mae", "options": {}, "rows": rows}
        items = {"ids": [f"image {n}" for n in range(len(rows))], "metrics": {"v_mae": mae}}
        return {"understanding": {"after": {"v_mae": sum(errors) / len(errors), "items": items}}}

    first = write(tmp_path / "a.json", report([0.5 + n / 10 for n in range(20)]))
    second = write(tmp_path / "b.json", report([0.4 + n / 10 for n in range(20)]))
    (found,) = json.loads(compare(first, second, "--json").stdout)["metrics"]
    assert found["verdict"] == "better"
    assert found["change_interval"] == pytest.approx([-0.1, -0.1])
    assert "▲ better" in compare(first, second).stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read {path}; got No such file or directory; expected the report.json of"),
        ("{", "cannot read {path}; got not JSON"),
        ("[]", "{path} is no report; got list"),
        ("{}", "hold no metrics"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    done = compare(path, path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message.format(path=path) in done.stderr


@pytest.mark.parametrize("inside", [False, True], ids=["file", "folder"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, inside: bool) -> None:
    path = tmp_path / "report.json"
    os.mkfifo(path)
    with pytest.raises(UserError, match=f"cannot read {path}; got no regular file; expected the"):
        read_report(tmp_path if inside else path)


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        ({"understanding": "x"}, "understanding of a report; got str; expected an object"),
        ({"generation": {"after": [1]}}, "generation.after of a report; got list"),
        ({"understanding": {"after": {"accuracy": "x"}}}, "understanding.after.accuracy; got 'x'"),
        ({"understanding": {"before": {"v_mae": True}}}, "understanding.before.v_mae; got True"),
        ({"understanding": {"after": {"intervals": "x"}}}, "understanding.after.intervals of a"),
        (
            {"understanding": {"after": {"intervals": {"v_mae": [1]}}}},
            r"understanding.after.intervals.v_mae; got \[1\]; expected null or two numbers",
        ),
        (
            {"generation": {"after": {"items": {"ids": ["a"], "metrics": {"m": 1}}}}},
            "generation.after.items.metrics.m; expected metric, options, and rows",
        ),
        (
            {"understanding": {"after": {"labels": ["awe"], "confusion": [["<b>"]]}}},
            "understanding.after.confusion; expected a row of counts",
        ),
        (
            {"understanding": {"after": {"labels": ["awe"], "confusion": [[1], [2]]}}},
            "understanding.after.confusion; expected a row of counts",
        ),
        ({"tasks": {"after": {"valence": 3}}}, "tasks.after.valence of a report; got int"),
        ({"tasks": {"after": {"own": {"score": "x"}}}}, "tasks.after.own.score; got 'x'"),
        # Their difference would be infinite, which no report and no JSON holds.
        (
            {"understanding": {"after": {"accuracy": -1e308}}},
            r"understanding.after.accuracy; got -1e\+308; expected null or a number within ±1e\+50",
        ),
        (
            {"generation": {"after": {"items": {"ids": ["a"], "metrics": {"m": HUGE}}}}},
            "generation.after.items.metrics.m; expected metric, options, and rows",
        ),
    ],
)
def test_a_report_of_another_shape(tmp_path: Path, report: object, problem: str) -> None:
    with pytest.raises(UserError, match=f"report.json: {problem}"):
        read_report(write(tmp_path / "report.json", report))


def test_names_in_a_report_cannot_steer_the_terminal(tmp_path: Path) -> None:
    report = {"tasks": {"after": {"a\x1b[2J": {"[/]m": 0.25}}}}
    path = write(tmp_path / "report.json", report)
    shown = compare(path, path)
    assert shown.returncode == 0, shown.stderr
    assert r"a\x1b[2J: [/]m" in shown.stdout
    found = json.loads(compare(path, path, "--json").stdout)
    assert found["metrics"][0]["name"] == "a\x1b[2J/[/]m"
