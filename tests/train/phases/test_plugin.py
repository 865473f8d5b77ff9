"""A phase from a user's file: the one of CONTRIBUTING.md, and files that cannot work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from emosym.errors import UserError
from emosym.plugins import load_plugin
from tests.train import probes
from tests.train.processes import refused, train, train_in_ranks
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


def test_a_run_is_resumed_with_its_plugin_only(tmp_path, preset, plugin):
    run = tmp_path / "run"
    done = train("run", preset(stages=STAGES), "--plugin", plugin, "--run", run)
    assert done.code == 0, done.err
    before = (run / "config.yaml").read_bytes()
    assert refused(train("resume", run, "stages.0.steps=3")) == (
        f"error: {run / 'config.yaml'}: no phase is named caption; give the run's plugins again"
        " (--plugin FILE.py), or correct the file"
    )
    assert (run / "config.yaml").read_bytes() == before


def test_a_plugin_that_only_the_resumed_run_has(tmp_path, preset, plugin):
    run = tmp_path / "run"
    done = train("run", preset(stages=[{"steps": 1, "cycle": {"compress": 1}}]), "--run", run)
    assert done.code == 0, done.err
    steps = '[{"steps": 1, "cycle": {"compress": 1}}, {"steps": 1, "cycle": {"caption": 1}}]'
    done = train("resume", run, "--plugin", plugin, f"stages={steps}", "caption.batch_size=4")
    assert done.code == 0, done.err
    assert [row["phase"] for row in probes.rows(run)] == ["compress", "caption"]


def test_two_ranks_train_a_phase_of_a_plugin(tmp_path, preset, plugin):
    args = ("--plugin", plugin, "--run", tmp_path / "run", "caption.batch_size=4")
    for rank in [one.wait() for one in train_in_ranks("run", preset(stages=STAGES), *args)]:
        assert rank.code == 0, rank.err
    plugin.write_text("1 / 0\n")
    args = ("--plugin", plugin, "--run", tmp_path / "other")
    for rank in [one.wait() for one in train_in_ranks("run", preset(stages=STAGES), *args)]:
        assert rank.code
        assert "caption.py:1: the plugin cannot be loaded" in rank.err
    assert not (tmp_path / "other").exists()


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


BODY = "    def loss(self, batch): ..."


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("    Config = Options\n    owns = ('understander',)", "has no loss; define loss in Odd"),
        ("    Config = Options", "has no loss or act; define loss or act in Odd"),
        (BODY, "Config of the phase 'odd' is no dataclass; got None"),
        (f"    Config = dict\n{BODY}", "Config of the phase 'odd' is no dataclass"),
        (f"    Config = Required\n{BODY}", "batch_size: required, but not given"),
        (f"    Config = Unreadable\n{BODY}", "Unexpected type annotation: complex"),
        (f"    Config = Empty\n    owns = ('understander',)\n{BODY}", "has no batch_size"),
        (f"    Config = Options\n    owns = 'understander'\n{BODY}", "owns of the phase 'odd'"),
        (
            f"    Config = Options\n    needs = frozenset({{'x'}})\n{BODY}",
            "needs of the phase 'odd'",
        ),
        (
            f"    Config = Options\n    batch_kind = 'songs'\n{BODY}",
            "batch_kind of the phase 'odd'",
        ),
        (f"    Config = Options\n    name = 'engine'\n{BODY}", "no other section's"),
        (f"    Config = Options\n    name = 'a b'\n{BODY}", "expected an identifier"),
        (f"    Config = Options\n    name = 'extends'\n{BODY}", "no other section's"),
    ],
)
def test_a_class_that_cannot_be_a_phase_is_refused_where_it_is_registered(tmp_path, body, why):
    path = tmp_path / "odd.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom train.phases.base import Phase\n"
        "from train.phases.registry import PHASES\n"
        "@dataclass\nclass Options:\n    batch_size: int = 4\n"
        "@dataclass\nclass Required:\n    batch_size: int\n"
        "@dataclass\nclass Unreadable:\n    batch_size: complex = 1j\n"
        "@dataclass\nclass Empty:\n    other: int = 1\n"
        f"class Odd(Phase):\n    name = 'odd'\n{body}\n"
        "PHASES.register(Odd.name, Odd)\n"
    )
    with pytest.raises(UserError, match="the plugin cannot be loaded; got UserError") as err:
        load_plugin(path)
    assert why in str(err.value)
    assert "odd" not in PHASES


@pytest.mark.parametrize("member", [3, CompressConfig])
def test_what_is_no_class_of_phases_is_refused(member):
    with pytest.raises(UserError, match=r"'odd' is not a phase; .*expected a subclass of Phase"):
        PHASES.register("odd", member)


def test_a_need_brings_its_options():
    with pytest.raises(TypeError, match="derive its Config from BankConfig"):

        class Odd(Phase):
            name = "odd"
            Config = CompressConfig
            needs = frozenset({"bank"})


@pytest.mark.parametrize(
    "file", ["trainer", "run", "texts", "checkpoints/checkpoint", "changes", "config"]
)
def test_what_serves_all_phases_names_none(file):
    text = (ROOT / "train" / f"{file}.py").read_text("utf-8")
    code = re.sub(r'"""(.|\n)*?"""', "", text)  # a docstring may give an example
    if file in ("trainer", "run", "texts"):
        code = text
    assert [name for name in PHASES if re.search(rf"\b{name}\b", code)] == []
