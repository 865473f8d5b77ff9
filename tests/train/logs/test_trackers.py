"""Trackers get the metrics of each step; what is not installed is told before anything is drawn."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emosym.errors import UserError
from tests.train.processes import refused, train
from train.logs import trackers
from train.logs.trackers import TRACKERS, check_trackers, open_trackers

SECRET = "k" * 40
CONFIG = {"seed": 3, "stages": [{"steps": 2, "cycle": {"compress": 1}}]}


def missing(name: str) -> bool:
    return importlib.util.find_spec(name) is None


def log_two_steps(name: str, run: Path) -> None:
    run.mkdir(exist_ok=True)
    (tracker,) = open_trackers([name], run, 0, "emosym-test", CONFIG)
    for step in range(2):
        tracker.log(step, {"compress/loss": 1.5 - step, "lr/understander": 1e-3})
    tracker.image(1, "samples", Image.new("RGB", (8, 6), "red"))
    tracker.close()


def in_a_process(name: str, run: Path, **environment: str) -> None:
    """Log two steps in a process of their own: its end writes what is pending."""
    code = "from pathlib import Path; from tests.train.logs.test_trackers import log_two_steps;"
    code += f"log_two_steps({name!r}, Path({str(run)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_tensorboard_has_every_metric_and_the_samples(tmp_path: Path) -> None:
    log_two_steps("tensorboard", tmp_path / "run")
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in found.Scalars("compress/loss")] == [(0, 1.5), (1, 0.5)]
    assert [e.value for e in found.Scalars("lr/understander")] == pytest.approx([1e-3] * 2)
    (image,) = found.Images("samples")
    assert (image.step, image.width, image.height) == (1, 8, 6)


@pytest.mark.skipif(missing("wandb"), reason="wandb is not installed")
def test_wandb_offline(tmp_path: Path) -> None:
    in_a_process("wandb", tmp_path / "run", WANDB_MODE="offline", WANDB_API_KEY=SECRET)
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (whole,) = folder.glob("*.wandb")
    written = whole.read_bytes()
    assert b"compress/loss" in written
    assert folder.name.endswith(trackers._identity(tmp_path / "run"))
    assert list(folder.glob("files/media/images/samples_1_*.png"))
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.skipif(missing("trackio"), reason="trackio is not installed")
def test_trackio(tmp_path: Path) -> None:
    in_a_process("trackio", tmp_path / "run", TRACKIO_DIR=str(tmp_path / "trackio"))
    (database,) = (tmp_path / "trackio").glob("emosym-test*.db")
    with sqlite3.connect(database) as connection:
        rows = [json.loads(row) for (row,) in connection.execute("SELECT metrics FROM metrics")]
    assert [row["compress/loss"] for row in rows if "compress/loss" in row] == [1.5, 0.5]


def test_a_tracker_that_is_not_installed_is_told_at_start(tmp_path, preset, monkeypatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"report_to names wandb, which is not .*pip install wandb"):
        check_trackers(["wandb"])
    check_trackers([])


@pytest.mark.skipif(not missing("wandb"), reason="wandb is installed")
def test_a_run_with_a_missing_tracker_does_not_begin(tmp_path, preset) -> None:
    path = preset(stages=[{"steps": 1, "cycle": {"compress": 1}}], report_to=["wandb"])
    told = refused(train("run", path, "--run", tmp_path / "run"))
    assert "report_to names wandb, which is not installed" in told
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(tmp_path, preset) -> None:
    path = preset(stages=[{"steps": 1, "cycle": {"compress": 1}}], report_to=["mlflow"])
    told = refused(train("run", path, "--run", tmp_path / "run"))
    assert "report_to" in told
    assert set(TRACKERS) == {"tensorboard", "wandb", "trackio"}


def test_no_tracker_leaves_metrics_alone(tmp_path, preset) -> None:
    path = preset(stages=[{"steps": 1, "cycle": {"compress": 1}}], report_to=[])
    assert train("run", path, "--run", tmp_path / "run").code == 0
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_the_id_is_the_runs_own(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert trackers._identity(one) == trackers._identity(tmp_path / "a" / ".." / "a" / "run")
    assert trackers._identity(one) != trackers._identity(two)
