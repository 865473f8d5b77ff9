"""What a run knows of its own start."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from emosym.errors import UserError
from eval.reports.environment import environment, run_facts, source_commit
from train.evaluation import facts as noting
from train.evaluation.facts import FACTS, facts, starts

ROOT = Path(__file__).resolve().parents[3]


def test_facts_are_those_of_the_first_start(tmp_path: Path) -> None:
    assert starts(tmp_path) == []
    assert facts(tmp_path) == {}
    first = {"command": "python -m train run a.yaml", "started": "2026-01-02 03:04 UTC"}
    later = {"command": "python -m train resume a", "started": "2026-01-03 00:00 UTC"}
    (tmp_path / FACTS).write_text(json.dumps([first]))
    assert facts(tmp_path) == first
    (tmp_path / FACTS).write_text(json.dumps([first, later, later]))
    assert facts(tmp_path) == first | {"resumed": "2026-01-03 00:00 UTC, 2026-01-03 00:00 UTC"}


def test_each_start_is_noted_with_its_commit_and_ranks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(noting, "environment", lambda: {"commit": "abc+", "torch": "2.13"})
    monkeypatch.setattr(noting.ranks, "size", lambda: 2)
    for _ in range(2):
        noting.note_start(tmp_path)
    for start in starts(tmp_path):
        assert start.keys() == {"command", "started", "ranks", "commit"}
        assert (start["ranks"], start["commit"]) == ("2", "abc+")
    assert len(starts(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["", "{}", "[3]", '[{"ranks": 1}]', "[NaN]", "[" * 10_000])
def test_damaged_facts_are_one_line(tmp_path: Path, damage: str) -> None:
    (tmp_path / FACTS).write_text(damage)
    with pytest.raises(UserError, match=r"run\.json cannot be read; got .*; expected the starts"):
        starts(tmp_path)


def test_the_command_can_be_given_again() -> None:
    """As it was typed, with quotes where a shell needs them."""
    code = "from datetime import UTC, datetime; from eval.reports.environment import run_facts;"
    code += "import sys; sys.argv = ['x', 'run', 'my preset.yaml', 'seed=1'];"
    code += "print(run_facts(datetime(2026, 1, 2, 3, 4, tzinfo=UTC)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "run 'my preset.yaml' seed=1" in done.stdout
    assert "2026-01-02 03:04 UTC" in done.stdout
    assert run_facts(datetime.now(UTC)).keys() == {"command", "started"}


def test_versions_machine_and_commit() -> None:
    known = environment()
    for name in ("python", "torch", "transformers", "machine", "device"):
        assert known[name], name
    if (ROOT / ".git").exists():
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        assert source_commit().removesuffix("+") == head
