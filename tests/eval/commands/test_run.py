"""`python -m eval run` on the shipped model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_tools.affectworld.world import write_world

ROOT = Path(__file__).resolve().parents[3]


def evaluate(*words: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "eval", "run", *map(str, words)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_shipped_model_is_scored_on_a_world_it_never_saw(tmp_path: Path) -> None:
    write_world(tmp_path / "world", 160, seed=99)
    done = evaluate(
        *("emosym-tiny", tmp_path / "world", "--out", tmp_path / "run", "--count", 4),
        *("--tasks", "dominant, affect", "--lenient", "--answer-tokens", 64, "--grids", 0),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    after = report["understanding"]["after"]
    assert after["count"] == 24, "15 % of each of eight classes of twenty"
    assert after["accuracy"] > 0.6, "the base is competent"
    assert after["v_mae"] < 0.5 * after["v_mae_mean"]
    assert after["answer_valid"] > 0.9
    drawn = report["generation"]["after"]
    assert drawn["oracle_v_error"] + drawn["oracle_a_error"] < 2.0
    tasks = report["tasks"]["after"]
    assert list(tasks) == ["dominant", "affect"]
    assert tasks["dominant"]["count"] == tasks["affect"]["count"] == 24
    assert tasks["affect"]["accuracy"] > 0.6
    assert 0 <= tasks["dominant"]["macro_f1"] <= 1
    assert "affect: accuracy" in done.stdout
    assert "affect: accuracy" in (tmp_path / "run" / "report.html").read_text()
    assert "gemm_4bit" not in done.stderr
    assert report["run"]["command"].startswith("python -m eval run emosym-tiny ")
    assert report["environment"]["torch"]


def test_sizes_are_options(tmp_path: Path) -> None:
    write_world(tmp_path / "world", 160, seed=99)
    sizes = ("--samples", 5, "--count", 0, "--grids", 0)
    out = tmp_path / "run"
    done = evaluate("emosym-tiny", tmp_path / "world", "--out", out, *sizes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["understanding"]["after"]["count"] == 5
    assert "generation" not in report
    assert not (out / "samples.png").exists()


def test_no_report_is_ever_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 1\n")
    done = evaluate("emosym-tiny", tmp_path / "no", "--out", tmp_path / "run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path / 'run'} is not empty; expected a new folder for the report;"
        " choose another folder\n"
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_missing_dataset_is_one_line(tmp_path: Path) -> None:
    done = evaluate("emosym-tiny", tmp_path / "no", "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no dataset at" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_file_of_questions_is_scored_without_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    records = []
    for place, (valence, judged) in enumerate([(7.0, "A"), (2.0, "B"), (5.0, "A")]):
        name = f"{place}.png"
        Image.new("RGB", (64, 64), (80 * place, 120, 200)).save(tmp_path / "images" / name)
        records.append(
            {
                **{"image_name": name, "category": "Animal"},
                "emotion_list": [["joy", 40], ["neutral", 30], ["surprise", 20]],
                **{key: [valence, 1.0, 2.0] for key in ("Valence", "Arousal", "Dominance")},
                **{"judge_Q": "Is joy evoked?", "judge_A": {"A": "Yes.", "B": "No."}},
                **{"judge_answer": judged, "choose_answer": "A"},
                **{"choose_Q": "How high is the arousal?", "choose_A": {"A": "Low.", "B": "High."}},
                "open_ended_Q": "What does this image evoke?",
            }
        )
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(records))
    done = evaluate(
        *("emosym-tiny", file, "--images", tmp_path / "images", "--out", tmp_path / "run"),
        *("--tasks", "valence,perception"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert not {"understanding", "generation"} & report.keys()
    tasks = report["tasks"]["after"]
    assert {task: found["count"] for task, found in tasks.items()} == {
        "valence": 3,
        "perception": 6,
    }
    assert tasks["perception"].keys() >= {"single_yes_no", "single_what_how"}
    assert "perception: single images, yes or no" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("world", "--images", "i"), "--images has no effect; got world is a dataset"),
        (("q.json", "--judge", "j"), "--judge has no effect; got q.json is a file of"),
        (("world", "--lenient"), "--lenient has no effect; got no --tasks to ask"),
    ],
)
def test_an_option_is_never_ignored(tmp_path: Path, words: tuple, message: str) -> None:
    write_world(tmp_path / "world", 8, seed=99)
    data, *rest = words
    done = evaluate("emosym-tiny", data, "--out", "run", *rest, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
