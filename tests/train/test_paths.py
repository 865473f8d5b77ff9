"""Paths that are wrong: one line, before anything is imported that takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emosym.errors import UserError
from tests.train.processes import ROOT, environment
from train.paths import check_start

TELL = """
import runpy, sys
try:
    runpy.run_module("train", run_name="__main__")
except SystemExit as left:
    print(left.code, sorted({"torch", "deepspeed", "transformers"} & set(sys.modules)))
"""
TINY = "train/presets/tiny/joint-tiny.yaml"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ["run", TINY.replace("joint", "join")],
            f"no such configuration file; did you mean {TINY!r}",
        ),
        (["run", TINY, "--data", "no/such/data"], "no dataset at no/such/data; expected a folder"),
        (["run", TINY, "--run", "train"], "train is not empty; expected a new folder for the run"),
        (["resume", "runs/no-such-run"], "runs/no-such-run is not a run folder; got no config"),
    ],
)
def test_a_wrong_path_is_an_error_before_the_trainer_is_imported(arguments, problem):
    done = subprocess.run(
        [sys.executable, "-c", TELL, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "2 []\n"
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert problem in done.stderr


def test_one_rank_of_a_machine_reports_a_wrong_path():
    command = [sys.executable, "-m", "train", "resume", "runs/no-such-run"]
    done = [
        subprocess.run(command, cwd=ROOT, env=environment(rank, 2, 1), capture_output=True)
        for rank in (0, 1)
    ]
    assert [one.returncode for one in done] == [2, 2]
    assert [one.stderr.count(b"\n") for one in done] == [1, 0]


def advice(preset: Path) -> str:
    """Return the last part of the error for a preset that is not there."""
    with pytest.raises(UserError) as caught:
        check_start(preset, preset.parent / "run", None)
    return str(caught.value).rpartition("; ")[2]


def test_the_preset_that_is_suggested(tmp_path, monkeypatch):
    """One beside the wanted one comes before a shipped one of the same name."""
    monkeypatch.chdir(tmp_path)
    shipped = ROOT / TINY
    assert advice(tmp_path / "joint-tinny.yaml") == f"did you mean {str(shipped)!r}?"
    assert advice(tmp_path / "zzz.yaml") == f"see the presets in {ROOT / 'train/presets'}"
    monkeypatch.chdir(ROOT)
    assert advice(Path("joint-tiny.yaml")) == f"did you mean {TINY!r}?"
    mine = tmp_path / "joint-tiny.yaml"
    mine.write_text("seed: 1\n")
    assert advice(tmp_path / "joint-tinny.yaml") == f"did you mean {str(mine)!r}?"
