"""A phase from a user's file: the one of CONTRIBUTING.md, and files that cannot work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from emosym.errors import UserError
from tests.train import probes
from tests.train.processes import train
from train.phases.base import Phase
from train.phases.compress import CompressConfig
from train.phases.registry import PHASES, train_config

ROOT = Path(__file__).resolve().parents[3]
STAGES = [{"steps": 2, "cycle": {"caption": 1}}]


def example() -> str:
    """Return the file that CONTRIBUTING.md shows."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    return re.search(r"```python\n(.*?)```", text.split("## A phase")[1], re.S)[1]


@pytest.fixture
def plugin(tmp_path) -> Path:
    path = tmp_path / "caption.py"
    path.write_text(example())
    return path


def test_the_phase_of_contributing_trains(tmp_path, preset, plugin):
    run = tmp_path / "run"
    args = ("--plugin", plugin, "--run", run, "caption.batch_size=4")
    done = train("run", preset(stages=STAGES, save_every=1), *args)
    assert done.code == 0, done.err
    rows = probes.rows(run)
    assert [row["phase"] for row in rows] == ["caption"] * 2
    assert all(row["caption/loss"] > 0 and row["caption/grad_norm"] > 0 for row in rows)
    assert "caption:\n  batch_size: 4\n  label_weight: 1.0\n" in (run / "config.yaml").read_text()
    assert json.loads((run / "report.json").read_text())["phases"] == {"caption": 2}

    resumed = train("resume", run, "--plugin", plugin, "stages.0.steps=3")
    assert resumed.code == 0, resumed.err
    assert [row["step"] for row in probes.rows(run)] == [0, 1, 2]


def test_without_its_plugin_a_phase_is_unknown(tmp_path, preset):
    done = train("run", preset(stages=STAGES), "--run", tmp_path / "run")
    assert done.code == 2
    assert "unknown phase in stages.0.cycle: 'caption'" in done.err


def test_a_text_of_the_phase_is_checked_before_the_first_step(tmp_path, preset, plugin):
    plugin.write_text(example().replace('item.prompt or "")', '"<|im_end|>")', 1))
    done = train("run", preset(stages=STAGES), "--plugin", plugin, "--run", tmp_path / "run")
    assert done.code == 2
    assert "holds the control token '<|im_end|>'" in done.errors[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["data", "section", "other"])
def test_a_phase_needs_a_section_of_its_own(name, monkeypatch):
    class Odd(Phase):
        name = "data"
        Config = CompressConfig

    monkeypatch.setitem(PHASES, name, Odd)
    with pytest.raises(UserError, match=f"phase '{name}' cannot have a section in a preset"):
        train_config()


def test_a_need_brings_its_options():
    with pytest.raises(TypeError, match="derive its Config from BankConfig"):

        class Odd(Phase):
            name = "odd"
            Config = CompressConfig
            needs = frozenset({"bank"})


@pytest.mark.parametrize("file", ["trainer", "run", "texts", "checkpoint", "changes", "config"])
def test_what_serves_all_phases_names_none(file):
    text = (ROOT / "train" / f"{file}.py").read_text("utf-8")
    code = re.sub(r'"""(.|\n)*?"""', "", text)  # a docstring may give an example
    if file in ("trainer", "run", "texts"):
        code = text
    assert [name for name in PHASES if re.search(rf"\b{name}\b", code)] == []
