"""A run that was stopped and resumed is the run that was not, bit for bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch

from emosym.config import load_config
from emosym.errors import UserError
from memory_bank import MemoryBank
from model_zoo.text.text_encoders import SENTENCE
from tests.train.probes import rows, settings, terminate_at_third
from tests.train.processes import Training, in_ranks, train, train_in_ranks
from train.checkpoints.checkpoint import State
from train.data.bank_session import BankSession
from train.distributed.shards import SAFE
from train.phases.remember import RememberConfig

EVERY_PHASE = {
    "autoencode": 1,
    "compress": 1,
    "instruct": 1,
    "verify_posterior": 1,
    "verify_grpo": 1,
    "generate": 2,
    "remember": 1,
}
KILLS = int(os.environ.get("TRAIN_KILLS", "6"))
"""How often a run is killed at random moments."""
STEPS = 24
LONGEST = 6.0
"""Seconds after which a run of this file is killed at the latest: about what it takes."""
WORDS = {"distil_weight": 1.0, "reconstruct_weight": 0.1, "knowledge_encoder": SENTENCE}
"""Everything that compress reads words with."""


def count(run: Path) -> int:
    """Return how many rows a run that is going on has written."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def checkpoints(run: Path) -> list[str]:
    """Return the names of a run's checkpoints and of what killed saves left."""
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def tensors(value: object, name: str = "") -> dict[str, torch.Tensor]:
    """Return all tensors in a tree of dictionaries, lists and objects, by their place."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {}
    return {k: v for key, item in items for k, v in tensors(item, f"{name}/{key}").items()}


def last_state(run: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of the last checkpoint, optimizer states too."""
    folder = max((run / "checkpoints").glob("step-*"))
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.rglob("*.pt")):
        with torch.serialization.safe_globals(SAFE):
            whole = torch.load(path, weights_only=True)
        found |= tensors(whole, str(path.relative_to(folder)))
    return found


def assert_same_state(run: Path, twin: Path) -> None:
    """Assert that two runs end at the same bits."""
    here, there = last_state(run), last_state(twin)
    assert here.keys() == there.keys()
    assert [name for name in here if not torch.equal(here[name], there[name])] == []
    kinds = ("exp_avg", "exp_avg_sq", "step")
    for part in {name.split("/")[0] for name in here}:
        names = [name for name in here if name.startswith(part)]
        assert all(any(name.endswith(kind) for name in names) for kind in kinds), names
    for path in sorted((run / "model").rglob("*.safetensors")):
        assert path.read_bytes() == (twin / path.relative_to(run)).read_bytes(), path


def contents(run: Path) -> dict:
    """Return everything a bank holds; its own check must find nothing."""
    with MemoryBank.open(run / "bank") as bank:
        assert bank.verify() == []
        entries = bank.entries()
        return {
            "version": bank.version,
            "entries": entries,
            "refusals": bank.refusals(),
            "vectors": bank.embeddings([entry.id for entry in entries]).tolist(),
            "stats": bank.stats(),
        }


@pytest.fixture(scope="module")
def straight(tmp_path_factory, model, world) -> Path:
    """Return a run of all phases that nobody stopped."""
    folder = tmp_path_factory.mktemp("straight")
    done = train("run", preset_of(folder, model, world), "--run", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


def preset_of(folder: Path, model: Path, world: Path) -> Path:
    """Write a preset with every phase and checkpoints every five steps."""
    path = folder / "preset.yaml"
    path.write_text(
        json.dumps(
            settings(
                model,
                world,
                stages=[{"steps": STEPS, "cycle": EVERY_PHASE}],
                reasoning_tokens=3,
                compress=WORDS,
                generate={
                    "update_understander": True,
                    "image_share": 0.5,
                    "influence_steps": 3,
                    "source_dropout": {"text": 0.3, "affect": 0.3, "h_ctx": 0.2},
                },
                # A pool waits for the next step of the phase, across a checkpoint.
                remember={"admission": {"delay": 8}},
                save_every=5,
            )
        )
    )
    return path


def test_all_phases_run_once_a_step(straight):
    found = rows(straight)
    assert [row["step"] for row in found] == list(range(STEPS))
    turn = [name for name, steps in EVERY_PHASE.items() for _ in range(steps)]
    assert [row["phase"] for row in found] == turn * 3
    assert checkpoints(straight) == ["step-0000020", "step-0000024"]


def test_the_bank_is_in_play(straight):
    """Otherwise the tests of this file would not see a bank that resumes wrongly."""
    held = contents(straight)
    assert held["stats"]["synthetic"] > 0
    assert held["refusals"]
    assert held["version"] > 1


def test_sigterm_and_resume_equal_no_interruption(straight, tmp_path, model, world):
    run = tmp_path / "run"
    preset = preset_of(tmp_path, model, world)
    first = train("run", preset, "--run", run, before=terminate_at_third)
    assert first.code == 143, first.err
    assert count(run) == 3
    assert f"resume RUN={run}" in first.err
    assert first.errors == []
    assert checkpoints(run) == ["step-0000003"]

    assert train("resume", run).code == 0
    assert rows(run) == rows(straight)
    assert contents(run) == contents(straight)
    assert_same_state(run, straight)


@pytest.mark.timeout(600 + 30 * KILLS)
def test_kill_9_at_random_moments_loses_nothing(straight, tmp_path, model, world):
    """Anywhere: in the set-up, a step, a save, the bank, the last evaluation, the report."""
    preset = preset_of(tmp_path, model, world)
    moments, kills, ends = random.Random(11), KILLS, 0
    while kills or not ends:
        run = tmp_path / str(ends)
        while True:
            begun = (run / "config.yaml").exists()
            args = ["resume", run] if begun else ["run", preset, "--run", run]
            if run.exists() and not begun:
                shutil.rmtree(run)  # killed before it had written anything
            current = Training(args)
            if not kills:
                break
            current.process.join(moments.uniform(0, LONGEST))
            if current.process.exitcode is not None:
                break
            current.signal(signal.SIGKILL)
            kills -= current.wait().code == -signal.SIGKILL
        assert current.wait().code == 0, current.err
        assert rows(run) == rows(straight)
        assert contents(run) == contents(straight)
        assert_same_state(run, straight)
        assert checkpoints(run) == ["step-0000020", "step-0000024"]
        assert not list(run.glob(".*.tmp"))
        assert not list((run / "bank").rglob("*.tmp"))
        shutil.rmtree(run)
        ends += 1


def test_two_ranks_stop_together(tmp_path, model, world):
    run, twin = tmp_path / "run", tmp_path / "twin"
    preset = preset_of(tmp_path, model, world)
    first = train_in_ranks("run", preset, "--run", run, before={1: terminate_at_third})
    assert [rank.wait().code for rank in first] == [143, 143], first[0].err + first[1].err
    assert checkpoints(run) == ["step-0000003"]
    assert count(run) == 3

    alone = train("resume", run)
    assert alone.code == 2
    assert alone.errors == [
        "error: checkpoint step-0000003 was written by another number of ranks;"
        " got NPROC=1; resume with NPROC=2"
    ]
    assert [rank.wait().code for rank in train_in_ranks("resume", run)] == [0, 0]
    assert [rank.wait().code for rank in train_in_ranks("run", preset, "--run", twin)] == [0, 0]
    assert rows(run) == rows(twin)
    assert contents(run) == contents(twin)
    assert_same_state(run, twin)


ADAPTER = {"rank": 2, "alpha": 4.0, "dropout": 0.2}


@pytest.mark.parametrize(
    "sections",
    [
        # What a model draws for itself follows from the step too.
        {
            "lora": {"understander": ADAPTER, "generator": ADAPTER},
            "engine": {"zero_stage": 1, "gradient_accumulation_steps": 2},
        },
        {"engine": {"precision": "bf16"}},
    ],
    ids=["adapters with dropout", "bf16"],
)
def test_resume_is_exact_however_it_trains(tmp_path, model, world, sections):
    names = ("compress", "verify_posterior", "verify_grpo", "generate", "reinforce", "remember")
    stages = [{"steps": 12, "cycle": dict.fromkeys(names, 1)}]
    whole = settings(model, world, stages=stages, save_every=4, **sections)
    (tmp_path / "preset.yaml").write_text(json.dumps(whole))
    run, twin = tmp_path / "run", tmp_path / "twin"
    first = Training(["run", tmp_path / "preset.yaml", "--run", run])
    first.wait_for(lambda: count(run) >= 5)
    first.signal(signal.SIGKILL)
    first.wait()
    assert train("resume", run).code == 0
    assert train("run", tmp_path / "preset.yaml", "--run", twin).code == 0
    assert rows(run) == rows(twin)
    assert_same_state(run, twin)
    [kind] = {value.dtype for name, value in last_state(run).items() if "/module/" in name}
    assert kind == (torch.bfloat16 if "precision" in sections["engine"] else torch.float32)


@pytest.mark.parametrize("change", ["weight_decay=0.9", "max_grad_norm=1e-4"])
def test_what_an_optimizer_is_told_on_resume_counts(tmp_path, preset, change):
    """Its state in the checkpoint does not bring back what it was told before."""
    run, twin = tmp_path / "run", tmp_path / "twin"
    stages = [{"steps": 2, "cycle": {"compress": 1}}]
    assert train("run", preset(stages=stages), "--run", run).code == 0
    shutil.copytree(run, twin)
    assert train("resume", twin, "stages.0.steps=4").code == 0
    assert train("resume", run, "stages.0.steps=4", f"engine.understander.{change}").code == 0
    here, there = last_state(run), last_state(twin)
    moved = [name for name in here if "/module/" in name]
    assert moved
    assert not all(torch.equal(here[name], there[name]) for name in moved)


def refused_banks(run: Path, state: State) -> dict[str, str]:
    """Return what is said of a bank that is gone, older than its checkpoint, or another."""
    told = {}
    for name in ("older", "another"):
        shutil.copytree(run / "bank", run / name)
        with MemoryBank.open(run / name, "a") as bank:
            bank.rollback(1)
            while name == "another" and bank.version < state.bank_version:
                bank.remove([bank.entries()[0].id])
    for name in ("gone", "older", "another"):
        memory = BankSession(run / name, RememberConfig(), None, None, state.model_hash)
        with pytest.raises(UserError) as caught:
            memory.restore(state.bank_version, state.bank_digest)
        told[name] = str(caught.value)
    assert not (run / "gone").exists()
    for name, version in {"older": 1, "another": state.bank_version}.items():
        with MemoryBank.open(run / name) as bank:
            assert bank.version == version
    return told


def test_a_bank_that_is_not_the_runs_is_refused_and_left_alone(straight, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    state = load_config(State, run / "checkpoints" / f"step-{STEPS:07d}" / "state.json")
    [told] = in_ranks(refused_banks, run, state)
    own = f"expected the bank of this run, at version {state.bank_version} or later"
    end = f"{own}; put it back, or start a new run"
    foreign = "is not the one of the checkpoint; got"
    assert told == {
        "gone": f"the memory bank {run / 'gone'} is gone; {end}",
        "older": f"the memory bank {run / 'older'} {foreign} version 1; {end}",
        "another": f"the memory bank {run / 'another'} {foreign} other images; {end}",
    }


def test_a_stage_without_a_bank_does_not_forget_it(tmp_path, preset):
    run = tmp_path / "run"
    both = {"compress": 1, "remember": 1}
    first = train("run", preset(stages=[{"steps": 2, "cycle": both}]), "--run", run)
    assert first.code == 0, first.err
    with MemoryBank.open(run / "bank") as bank:
        before = [entry.id for entry in bank.entries()]
    assert before
    for stages in (
        "{steps: 3, cycle: {compress: 1}}",
        "{steps: 4, cycle: {compress: 3, remember: 1}}",
    ):
        again = train("resume", run, f"stages=[{stages}]")
        assert again.code == 0, again.err
    with MemoryBank.open(run / "bank") as bank:
        assert [entry.id for entry in bank.entries()][: len(before)] == before
        assert bank.version == 3  # real images, and two pools
