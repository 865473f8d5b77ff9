"""What a run leaves behind."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_tools.dataset import open_dataset
from emosym.config import load_config
from emosym.errors import UserError
from memory_bank import MemoryBank
from tests.train import probes
from tests.train.processes import ROOT, Training, environment, in_ranks, train
from train.phases.registry import train_config
from train.run import _begin

CYCLE = {"compress": 1, "verify_posterior": 1, "verify_grpo": 1, "generate": 1, "remember": 1}
UNDERSTANDING = {"accuracy", "macro_f1", "v_mae", "a_mae", "v_pearson", "a_pearson"}
GENERATION = {"oracle_v_error", "oracle_a_error", "judge_v_error", "judge_a_error", "diversity"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory, model, world) -> Path:
    """Return a run by the real command, measured before and after."""
    folder = tmp_path_factory.mktemp("measured")
    evaluate = {"before": True, "images": 8, "requests": 8, "per_request": 2, "grids": 1}
    whole = probes.settings(
        model, world, stages=[{"steps": 6, "cycle": CYCLE}], evaluate=evaluate, seed=5
    )
    (folder / "preset.yaml").write_text(json.dumps(whole))
    command = [
        sys.executable,
        "-m",
        "train",
        "run",
        folder / "preset.yaml",
        "--run",
        folder / "run",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert str(folder / "run" / "report.html") in done.stdout
    return folder / "run"


def test_the_report_has_what_other_tools_read(measured):
    report = json.loads((measured / "report.json").read_text())
    contract = {"wall_seconds", "understanding", "generation", "memory", "phases"}
    assert contract <= report.keys()
    assert report.keys() - contract == {"seed", "model", "tasks", "run", "environment"}
    assert report["understanding"].keys() == report["generation"].keys() == {"before", "after"}
    for when in ("before", "after"):
        assert report["understanding"][when].keys() >= UNDERSTANDING
        assert report["generation"][when].keys() >= GENERATION
        assert 0 <= report["understanding"][when]["accuracy"] <= 1
        assert 0 <= report["understanding"][when]["v_mae"] <= 6
    assert report["understanding"]["before"] != report["understanding"]["after"]
    assert report["phases"] == {**dict.fromkeys(CYCLE, 1), "compress": 2}
    assert report["wall_seconds"] > 0


def test_the_memory_numbers_are_those_of_the_bank(measured):
    memory = json.loads((measured / "report.json").read_text())["memory"]
    assert memory.keys() == {"size", "real", "synthetic", "admitted", "refused"}
    with MemoryBank.open(measured / "bank") as bank:
        assert {name: bank.stats()[name] for name in memory} == memory
        assert len(bank.entries(source="real")) == memory["real"] == 16
        assert len(bank.entries(source="synthetic")) == memory["admitted"]
        assert len(bank.refusals()) == memory["refused"]
    # One pool of an image for each of eight emotions; the gates see each once.
    assert memory["admitted"] + memory["refused"] == 8


def test_what_is_written(measured):
    names = {path.name for path in measured.iterdir()}
    assert names == {
        "bank", "before.json", "checkpoints", "config.yaml", "metrics.jsonl", "model",
        "report.html", "report.json", "run.json", "run.lock", "samples.png", "tensorboard",
    }  # fmt: skip
    assert list((measured / "tensorboard").iterdir())
    page = (measured / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    again = load_config(train_config(), measured / "config.yaml")
    assert again.seed == 5
    assert again.stages[0].cycle == CYCLE


def test_metrics_are_json_and_named_by_phase(measured):
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    lines = (measured / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=no_constant) for line in lines]
    assert [row["step"] for row in rows] == list(range(6))
    for row in rows:
        named = row.keys() - {"step", "phase", *probes.TIMING}
        named = {name for name in named if not name.startswith("lr/")}
        assert named
        assert all(name.startswith(f"{row['phase']}/") for name in named)
        assert all(math.isfinite(row[name]) for name in named)
    by_phase = {row["phase"]: row.keys() for row in rows}
    for phase in CYCLE.keys() - {"remember"}:
        assert {f"{phase}/loss", f"{phase}/grad_norm"} <= by_phase[phase]
    assert "verify_grpo/ratio_deviation" in by_phase["verify_grpo"]
    assert {"remember/admitted", "remember/refused"} <= by_phase["remember"]


def test_killed_before_training_a_run_can_be_resumed(tmp_path, model):
    """While its world is drawn, and while the start is measured: twice nothing is lost."""
    run = tmp_path / "run"
    world = {"count": 400, "seed": 3}
    whole = probes.settings(
        model,
        Path("unused"),
        stages=[{"steps": 2, "cycle": {"compress": 1, "remember": 1}}],
        data={"path": None, "world": world},
        evaluate={"before": True, "images": 40, "requests": 40},
    )
    (tmp_path / "preset.yaml").write_text(json.dumps(whole))
    first = Training(["run", tmp_path / "preset.yaml", "--run", run])
    first.wait_for(lambda: bool(list(run.glob(".world.*.partial/image/awe/*"))))
    first.signal(signal.SIGKILL)
    first.wait()
    assert not (run / "world").exists()

    second = Training(["resume", run])
    second.wait_for(lambda: (run / "bank").exists())
    time.sleep(0.1)
    second.signal(signal.SIGKILL)
    assert second.wait().code == -signal.SIGKILL
    assert not (run / "before.json").exists()

    assert train("resume", run).code == 0
    report = json.loads((run / "report.json").read_text())
    assert report["understanding"].keys() == {"before", "after"}
    assert report["memory"]["real"] == 16
    assert [path for path in os.listdir(run) if path.startswith(".")] == []


def test_a_finished_run_resumed_reports_the_same(measured):
    """Killed before its report was written it measures again; afterwards it shows what it has."""
    before = json.loads((measured / "report.json").read_text())
    metrics = (measured / "metrics.jsonl").read_bytes()
    (measured / "report.json").unlink()
    done = train("resume", measured)
    assert done.code == 0, done.err
    assert "continues after step 6 of 6" in done.err
    written = (measured / "report.json").read_bytes()
    after = json.loads(written)
    assert "resumed" in after.pop("run")
    before.pop("run")
    for report in (before, after):
        report.pop("wall_seconds")
    assert after == before
    assert (measured / "metrics.jsonl").read_bytes() == metrics
    again = train("resume", measured)
    assert again.code == 0, again.err
    assert "is finished; this is its report" in again.err
    assert "emotion accuracy" in again.out
    assert (measured / "report.json").read_bytes() == written


def claim_twice(run: Path, preset: Path) -> str:
    """Begin in a folder in which another process began meanwhile."""
    run.mkdir()
    (run / "config.yaml").write_text("seed: 1")
    with pytest.raises(UserError) as caught:
        _begin(load_config(train_config(), preset), run)
    return str(caught.value)


def test_a_folder_is_claimed_once(tmp_path, preset):
    path = preset(stages=[{"steps": 1, "cycle": {"compress": 1}}])
    [told] = in_ranks(claim_twice, tmp_path / "run", path)
    assert told.startswith("another process started a run in")
    assert [path.read_text() for path in (tmp_path / "run").iterdir()] == ["seed: 1"]


def test_a_run_of_questions_alone(tmp_path, model, world):
    """Files of questions with their images and nothing else, as the presets of EEmo-Logic have."""
    images = world / "image"
    named = [str(sample.image.relative_to(images)) for sample in open_dataset(world)[:6]]
    records = [
        {
            "id": number,
            "image": name,
            "conversations": [
                {"from": "human", "value": "<image>\nWhich emotion is it? A: fear B: joy"},
                {"from": "gpt", "value": "AB"[number % 2]},
            ],
        }
        for number, name in enumerate(named)
    ]
    for split in ("train", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps(records))
    files = {"images": str(images)} | {s: str(tmp_path / f"{s}.json") for s in ("train", "test")}
    whole = probes.settings(
        model,
        world,
        data={"path": None, "tasks": [], "instructions": files},
        stages=[{"steps": 2, "cycle": {"instruct": 1, "verify_grpo": 1}}],
        verify_grpo={"reward_weights": {"option": 1.0, "emotion": 0.0, "affect_threshold": 0.0}},
        evaluate={"before": True, "questions": 4},
    )
    (tmp_path / "preset.yaml").write_text(json.dumps(whole))
    done = train("run", tmp_path / "preset.yaml", "--run", tmp_path / "run")
    assert done.code == 0, done.err
    tasks = json.loads((tmp_path / "run" / "report.json").read_text())["tasks"]
    assert tasks["before"]["perception"]["count"] == tasks["after"]["perception"]["count"] == 4
