"""Runs that cannot be resumed as asked: one line, exit code 2, the run is left alone."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch

from emosym.config import load_config
from emosym.errors import UserError
from memory_bank.store.lock import WriterLock
from tests.train import probes
from tests.train.probes import compress, sign
from tests.train.processes import refused, train, train_in_ranks
from train.changes import check_changes
from train.checkpoints.checkpoint import read_state
from train.checkpoints.files import list_checkpoints
from train.phases.registry import train_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model, world) -> Path:
    """Return a run with two checkpoints that lacks its report: it has to be loaded again."""
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "preset.yaml"
    path.write_text(json.dumps(probes.settings(model, world, **compress(4), save_every=2)))
    assert train("run", path, "--run", folder / "run").code == 0
    (folder / "run" / "report.json").unlink()
    return folder / "run"


def test_a_checkpoint_that_does_not_fit(finished, tmp_path, model):
    """Damaged in one way after another; each time the run and its checkpoints are left alone."""

    def part(run: Path) -> None:
        edit(run, "compress: 1", "generate: 1")

    def weights(run: Path) -> None:
        folder = run / "checkpoints/step-0000004"
        path = folder / "understander/state/mp_rank_00_model_states.pt"
        whole = torch.load(path, weights_only=True)
        whole["module"]["reasoner.context"][0, 0] += 1e-6
        torch.save(whole, path)
        sign(folder)

    def shapes(run: Path) -> None:
        folder = run / "checkpoints/step-0000004"
        [path] = folder.rglob("*optim_states.pt")
        torch.save({"optimizer_state_dict": {"loss_scaler": [1]}}, path)
        sign(folder)

    def other_model(run: Path) -> None:
        shutil.copytree(model, run.parent / "other")
        heads = run.parent / "other" / "heads.safetensors"
        heads.write_bytes(heads.read_bytes()[:-1] + b"\x01")
        edit(run, str(model), str(run.parent / "other"))

    def adapted(run: Path) -> None:
        edit(run, "understander: null", "understander: {rank: 2, alpha: 4.0}")

    for number, (damage, message) in enumerate(
        [
            (part, "holds other parts; got understander; expected generator; resume with the st"),
            (weights, "the loaded weights of understander are not those saved"),
            (shapes, "step-0000004 does not fit part understander"),
            (other_model, "was trained from another starting model"),
            (adapted, "does not fit part understander"),
        ]
    ):
        run = tmp_path / str(number) / "run"
        shutil.copytree(finished, run)
        damage(run)
        before = {p: p.stat().st_mtime_ns for p in (run / "checkpoints").rglob("*")}
        assert message in refused(train("resume", run)), damage.__name__
        assert {p: p.stat().st_mtime_ns for p in (run / "checkpoints").rglob("*")} == before


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"step": -1}, "holds another step: .*: step; got -1; there is no earlier"),
        ({"step": 10**18}, "holds another step: .*: step; got 1000000000000000000; there"),
        ({"step": "four"}, r"state.json: step: got 'four'; expected an integer .*; there"),
        ({"digests": None}, "state.json: digests: got null; expected a mapping of names"),
        ({"seconds": math.nan}, "state.json: seconds: got .*; expected a finite number"),
        ({"stap": 4}, "state.json: stap: unknown key; did you mean 'step'"),
        ([], "state.json: is a list; expected a mapping of keys to values"),
        ({}, "state.json: is empty"),
        (b"\xff\xfe", "state.json: is not a UTF-8 text file"),
        (b"[" * 100_000, "state.json:1: not valid YAML: nested deeper than"),
    ],
)
def test_a_state_with_odd_values(finished, tmp_path, found, message):
    checkpoint = tmp_path / "step-0000004"
    checkpoint.mkdir()
    whole = json.loads((finished / "checkpoints/step-0000004/state.json").read_text())
    if isinstance(found, dict) and found:
        found = whole | found
    text = found if isinstance(found, bytes) else json.dumps(found).encode()
    (checkpoint / "state.json").write_bytes(text)
    with pytest.raises(UserError, match=f"^checkpoint .*{message}"):
        read_state(checkpoint)


def test_a_file_in_place_of_the_checkpoints(finished, tmp_path):
    assert list_checkpoints(tmp_path / "none") == []
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(UserError, match=f"{name} is not a folder; put the run's checkpoints"):
            list_checkpoints(tmp_path / name)


def test_a_schedule_that_ends_before_the_checkpoint(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert refused(train("resume", run, "stages.0.steps=2")) == (
        "error: the stages end before checkpoint step-0000004; got 2 steps in all;"
        " expected at least 4; give a stage more steps"
    )
    assert (run / "config.yaml").read_text() == (finished / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("override", "measured", "message"),
    [
        ("seed=1", False, "seed cannot change in a run that has begun; got 1; expected 0; leave"),
        ("model=other", False, "model cannot change"),
        ("from_scratch=true", False, "from_scratch cannot change"),
        ("data.path=photos", False, "data.path cannot change .*; got 'photos'; expected "),
        ("data.world.count=9", False, "data.world.count cannot change"),
        ("data.flip=true", False, "data.flip cannot change"),
        ("lora.understander={rank: 2, alpha: 1}", False, "lora.understander.rank cannot change"),
        ("engine.precision=bf16", False, "engine.precision cannot change"),
        ("remember.real=1", False, "remember.real cannot change"),
        ("evaluate.before=true", False, "evaluate.before cannot change"),
        ("evaluate.images=9", True, "evaluate.images cannot change"),
        ("evaluate.images=9", False, None),
        ("stages.0.steps=9", True, None),
        ("seed=0", True, None),  # the same value
        (
            "engine.understander="
            "{learning_rate: 1, weight_decay: 0, max_grad_norm: 0, warmup_steps: 0}",
            True,
            None,
        ),
        ("engine.gradient_accumulation_steps=2", True, None),
        ("compress.label_weight=0", True, None),
        ("save_every=1", True, None),
    ],
)
def test_what_may_change_in_a_run_that_has_begun(preset, override, measured, message):
    old, new = (load_config(train_config(), preset(**compress(4)), o) for o in ([], [override]))
    if message is None:
        check_changes(old, new, measured=measured)
        return
    with pytest.raises(UserError, match=f"^{message}"):
        check_changes(old, new, measured=measured)


def test_a_change_that_is_refused_changes_nothing(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert "seed cannot change in a run" in refused(train("resume", run, "seed=1"))
    assert (run / "config.yaml").read_text() == (finished / "config.yaml").read_text()


def test_a_run_that_is_going_on_is_left_alone(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    lock = WriterLock(run / "run.lock", "the run", "choose another")
    first, second = (rank.wait() for rank in train_in_ranks("resume", run))
    lock.release()
    message = refused(first)
    assert message.startswith(
        f"error: the run {run} has another writer; got process {os.getpid()} on"
    )
    assert message.endswith("; wait until it ends, or choose another RUN")
    assert (second.code, second.errors) == (2, [])


def edit(run: Path, old: str, new: str) -> None:
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new))
