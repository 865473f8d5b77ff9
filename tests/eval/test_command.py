"""`python -m eval` on the shipped model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from data_tools.affectworld.world import write_world

ROOT = Path(__file__).resolve().parents[2]


def evaluate(*words: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "eval", *map(str, words)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_shipped_model_is_scored_on_a_world_it_never_saw(tmp_path: Path) -> None:
    write_world(tmp_path / "world", 160, seed=99)
    done = evaluate(
        *("emosym-tiny", tmp_path / "world", "--out", tmp_path / "run", "--count", 4), cwd=tmp_path
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
    assert (tmp_path / "run" / "report.html").is_file()
    assert "gemm_4bit" not in done.stderr


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
