"""Steps that fail: the state before them is kept, and the run resumes from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_tools.dataset import open_dataset
from emosym.randomness import Draws
from tests.train import probes
from tests.train.probes import compress
from tests.train.processes import refused, train, train_in_ranks
from train.config import DataConfig
from train.data.dataset import TrainingSet


def test_a_broken_image_met_in_training(tmp_path, preset, world):
    """The step is refused before any rank waits for another; mended, the run goes on."""
    copy, run, straight = tmp_path / "world", tmp_path / "run", tmp_path / "straight"
    shutil.copytree(world, copy)
    # The last of four rows is rank 1's.
    [broken] = [s.image for s in open_dataset(copy) if s.id == seen(copy, step=3, row=3)]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    args = ("run", preset(**compress(5), save_every=2), "--data", copy, "--run", run)
    first, second = (rank.wait() for rank in train_in_ranks(*args))
    assert str(broken) in refused(second)
    assert (first.code, first.errors) == (2, [])
    assert [row["step"] for row in probes.rows(run)] == [0, 1, 2]

    broken.write_bytes(whole)
    assert [rank.wait().code for rank in train_in_ranks("resume", run)] == [0, 0]
    assert [row["step"] for row in probes.rows(run)] == list(range(5))
    broken.unlink()
    args = ("run", preset(**compress(5)), "--data", copy, "--run", straight)
    assert broken.name in refused(train(*args))


def seen(data: Path, step: int, row: int) -> str:
    """Return the id of the sample in a row of a compress step of four."""
    place = Draws(0, "mix", step).permutation(4).tolist()[row]
    return (
        TrainingSet(open_dataset(data), [], DataConfig(), 0)
        .take("samples", "compress", 4 * step, 4)[place]
        .id
    )


@pytest.mark.parametrize(
    ("poison", "what"),
    [
        (probes.poison_loss, "loss nan"),
        (probes.poison_gradient, "a gradient of understander that is not finite"),
    ],
)
def test_a_step_that_is_not_finite_is_refused(tmp_path, preset, world, poison, what):
    """In the second micro-batch: the state before the step is saved, and the run can resume."""
    run, straight = tmp_path / "run", tmp_path / "straight"
    args = ("run", preset(**compress(4, engine={"gradient_accumulation_steps": 2})), "--run")
    message = refused(train(*args, run, before=poison))
    assert message.startswith(f"error: step 3 (compress) was refused; got {what} for images ")
    assert seen(world, step=2, row=2 if poison is probes.poison_loss else 0) in message
    assert message.endswith(
        f"; the state before it is saved; fix the data, then `make resume RUN={run}`,"
        " or start a new run with a lower learning rate"
    )
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-0000002"]
    assert train("resume", run).code == 0
    assert train(*args, straight).code == 0
    assert probes.rows(run) == probes.rows(straight)
    for path in (straight / "model").rglob("*.safetensors"):
        assert path.read_bytes() == (run / path.relative_to(straight)).read_bytes()


def test_a_learning_rate_that_blows_up(tmp_path, preset):
    """The advice of the message works: lower it, and go back to the checkpoint that it names."""
    run = tmp_path / "run"
    rate = {"understander": {"learning_rate": 1e-3, "warmup_steps": 0}}
    done = train("run", preset(**compress(2, engine=rate), save_every=1), "--run", run)
    assert done.code == 0, done.err
    higher = ("stages.0.steps=4", "engine.understander.learning_rate=1e35")
    message = refused(train("resume", run, *higher))
    assert "step 4 (compress) was refused" in message
    assert message.endswith(
        f"or lower the learning rate, then `make resume RUN={run} CHECKPOINT=step-0000002`"
    )
    lower = ("--checkpoint", "step-0000002", "engine.understander.learning_rate=1e-3")
    assert train("resume", run, *lower).code == 0
    assert [row["step"] for row in probes.rows(run)] == list(range(4))
    assert "learning_rate: 0.001" in (run / "config.yaml").read_text()


def test_no_space_left_for_a_checkpoint(tmp_path, preset):
    run = tmp_path / "run"
    args = ("run", preset(**compress(4), save_every=2), "--run", run)
    first = train(*args, before=probes.poison_third)
    assert first.code == 2
    before = sorted((run / "checkpoints").rglob("*"))
    message = refused(train("resume", run, before=probes.no_space))
    assert "cannot be written" in message
    assert "free some space" in message
    assert sorted((run / "checkpoints").rglob("*")) == before
    assert train("resume", run).code == 0
    assert [row["step"] for row in probes.rows(run)] == list(range(4))
    # The model of a finished run is written anew.
    shutil.rmtree(run / "model")
    refused(train("resume", run, before=probes.no_space))
    assert not [*run.glob("model"), *run.glob(".model*")]
