"""Bad input: one line, exit code 2, nothing half-written, nothing lost."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from data_tools.dataset import open_dataset
from data_tools.manifest import write_manifest
from emosym.config import load_config
from emosym.errors import UserError
from emosym.models.model import ModelConfig
from emosym.randomness import Draws
from memory_bank.store.lock import WriterLock
from tests.train import probes
from tests.train.processes import refused, train, train_in_ranks
from train.changes import check_changes
from train.checkpoint import found, load
from train.config import DataConfig
from train.data.candidate_queue import CandidateQueue
from train.data.dataset import TrainingSet
from train.phases.compress import Compress, CompressConfig
from train.phases.generate import Generate, GenerateConfig
from train.phases.registry import train_config
from train.run import _scores_of

DELAY = "remember.admission.delay=1"


def compress(steps: int, **sections) -> dict:
    return {"stages": [{"steps": steps, "cycle": {"compress": 1}}], **sections}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["compress.batchsize=4"], "batchsize: unknown key; did you mean 'batch_size'?"),
        (["stages=[{steps: 1, cycle: {comprss: 1}}]"], "did you mean 'compress'?"),
        (["compress.batch_size=3", "engine.gradient_accumulation_steps=2"], "multiples of 2; ch"),
        (["model=emosym-tini"], "is not a model folder"),
        (["compress.knowledge_encoder=./nowhere"], "the model in ./nowhere cannot be loaded"),
        (["reasoning_tokens=-1"], "reasoning_tokens must lie in [0, inf]; got -1"),
        (["stages=[{steps: 1, cycle: {verify_grpo: 1}}]", "verify_grpo.reward_weights={fromat: 1}"],
         "did you mean 'format'?"),
    ],
)  # fmt: skip
def test_a_bad_preset(tmp_path, preset, overrides, message):
    done = train("run", preset(**compress(1)), *overrides, "--run", tmp_path / "run")
    assert message in refused(done)
    assert not (tmp_path / "run").exists()


def test_a_bad_dataset(tmp_path, preset, world):
    """One dataset after another, each with its error."""
    samples = open_dataset(world)
    names = ("empty", "learn", "bare", "long")
    empty, learn_only, unlabelled, long = (world / f"{name}.jsonl" for name in names)
    empty.write_text("")
    write_manifest(learn_only, [s for s in samples if s.split == "train"])
    write_manifest(unlabelled, [dataclasses.replace(s, emotion=None) for s in samples])
    write_manifest(long, [dataclasses.replace(s, prompt="a boat " * 30) for s in samples])
    label = ["stages=[{steps: 1, cycle: {verify_posterior: 1}}]"]
    reward = ["stages=[{steps: 1, cycle: {verify_grpo: 1}}]"]
    draw = ["stages=[{steps: 1, cycle: {remember: 1}}]"]
    for data, overrides, message in [
        (tmp_path / "nowhere", [], "error: no dataset at"),
        (empty, [], "empty.jsonl"),
        (learn_only, [], "error: the dataset has no images in split 'test'"),
        (unlabelled, label, "error: phase verify_posterior needs an emotion label"),
        (unlabelled, reward, "verify_grpo.reward_weights.emotion=0"),
        (world, [*label, "verify_posterior.hard_negatives=0.2"], "has no bank to find them in"),
        (unlabelled, [*draw, f"remember.generated={unlabelled}"], "has images without an emotion"),
        (
            world,
            [*draw, f"remember.generated={world}", "remember.admission.delay=1"],
            "images that no step",
        ),
        (long, draw, f"sample {samples[0].id!r} cannot"),
    ]:
        run = tmp_path / "run"
        done = train("run", preset(**compress(1)), *overrides, "--data", data, "--run", run)
        assert message in refused(done)
        assert not run.exists()


def test_two_ranks_that_do_not_divide_the_batch(tmp_path, preset):
    run = tmp_path / "run"
    done = train_in_ranks("run", preset(**compress(1, compress={"batch_size": 3})), "--run", run)
    first, second = (rank.wait() for rank in done)
    assert refused(first) == (
        "error: batch sizes are global and must divide over ranks and micro-batches;"
        " got compress.batch_size=3 with NPROC=2 and gradient_accumulation_steps=1;"
        " expected multiples of 2;"
        " change NPROC, engine.gradient_accumulation_steps or compress.batch_size"
    )
    assert (second.code, second.errors) == (2, [])  # one rank of a machine reports it
    assert not run.exists()


@pytest.mark.parametrize(
    ("fact", "overrides", "option"),
    [
        ("emotion", {}, "compress.label_weight"),
        ("knowledge", {}, "compress.knowledge_weight"),
        ("knowledge", {"knowledge_weight": 0, "language_weight": 1}, "compress.language_weight"),
        ("valence", {}, None),  # arousal is left to learn from
    ],
)
def test_a_loss_without_data(world, fact, overrides, option):
    samples = [dataclasses.replace(sample, **{fact: None}) for sample in open_dataset(world)]
    context = SimpleNamespace(
        config=SimpleNamespace(compress=CompressConfig(**overrides)),
        training_set=TrainingSet(samples, [], DataConfig(), 0),
        model=SimpleNamespace(config=ModelConfig()),
    )
    if option is None:
        Compress(context)
        return
    with pytest.raises(UserError, match=f"^{option} has nothing to learn from; got no training"):
        Compress(context)


def test_a_share_of_emotional_prompts_where_there_are_none(world):
    samples = [dataclasses.replace(one, emotional_prompt=None) for one in open_dataset(world)]
    context = SimpleNamespace(
        config=SimpleNamespace(generate=GenerateConfig(emotional_share=0.5)),
        training_set=TrainingSet(samples, [], DataConfig(), 0),
    )
    with pytest.raises(UserError, match=r"^generate\.emotional_share has nothing to learn from"):
        Generate(context)
    context.training_set = TrainingSet(open_dataset(world), [], DataConfig(), 0)
    Generate(context)


def test_folders_that_are_in_the_way(tmp_path, preset):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    done = train("run", preset(**compress(1)), "--run", tmp_path / "full")
    assert "is not empty" in refused(done)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("mine")
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        told = refused(train("run", preset(**compress(1)), "--run", run))
        assert told.endswith("; correct it, then start the run again, or choose another RUN")
    assert (tmp_path / "file").read_text() == "mine"
    done = train("resume", tmp_path / "full")
    assert refused(done) == (
        f"error: {tmp_path / 'full'} is not a run folder; got no config.yaml in it;"
        " expected RUN=<folder of a run>"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model, world) -> Path:
    """Return a run with two checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "preset.yaml"
    path.write_text(json.dumps(probes.settings(model, world, **compress(4), save_every=2)))
    assert train("run", path, "--run", folder / "run").code == 0
    return folder / "run"


def test_a_checkpoint_that_does_not_fit(finished, tmp_path, model):
    """Damaged in one way after another; each time the run and its checkpoints are left alone."""

    def cut(run: Path) -> None:
        path = run / "checkpoints/step-0000004/understander/state/mp_rank_00_model_states.pt"
        path.write_bytes(path.read_bytes()[:1000])

    def optimizer(run: Path) -> None:
        [path] = (run / "checkpoints/step-0000004").rglob("*optim_states.pt")
        path.unlink()

    def state(run: Path) -> None:
        (run / "checkpoints/step-0000004/state.json").write_text('{"step": 4,')

    def part(run: Path) -> None:
        edit(run, "compress: 1", "generate: 1")

    def weights(run: Path) -> None:
        path = run / "checkpoints/step-0000004/understander/state/mp_rank_00_model_states.pt"
        size = path.stat().st_size
        whole = torch.load(path, weights_only=False)
        whole["module"]["reasoner.context"][0, 0] += 1e-6
        torch.save(whole, path)
        assert path.stat().st_size == size

    def other_model(run: Path) -> None:
        shutil.copytree(model, run.parent / "other")
        heads = run.parent / "other" / "heads.safetensors"
        heads.write_bytes(heads.read_bytes()[:-1] + b"\x01")
        edit(run, str(model), str(run.parent / "other"))

    def adapted(run: Path) -> None:
        edit(run, "understander: null", "understander: {rank: 2, alpha: 4.0}")

    for number, (damage, message) in enumerate(
        [
            (
                cut,
                "step-0000004 is damaged; got understander/state/mp_rank_00_model_states.pt with",
            ),
            (optimizer, "delete this checkpoint to use the one before"),
            (state, "cannot be read"),
            (part, "holds other parts; got understander; expected generator; resume with the st"),
            (weights, "the loaded weights of understander are not those saved"),
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

    # The advice holds: without the damaged one, the run goes on from the one before.
    run = tmp_path / "0" / "run"
    shutil.rmtree(run / "checkpoints/step-0000004")
    assert train("resume", run).code == 0
    assert probes.rows(run) == probes.rows(finished)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"step": -1}, "holds another step: .*: step; got -1; delete this checkpoint"),
        ({"step": 10**18}, "holds another step: .*: step; got 1000000000000000000; delete"),
        ({"step": "four"}, r"state.json: step: got 'four'; expected an integer .*; delete"),
        ({"digests": None}, "state.json: digests: got null; expected a mapping of names"),
        ({"files": {"a": "big"}}, "state.json: files.a: got 'big'; expected an integer"),
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
        load(checkpoint, {}, {}, CandidateQueue(), whole["model_hash"])


def test_a_file_in_place_of_the_checkpoints(finished, tmp_path):
    assert found(tmp_path / "none") == []
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(UserError, match=f"{name} is not a folder; put the run's checkpoints"):
            found(tmp_path / name)


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
        ("engine.understander={learning_rate: 1, max_grad_norm: 0, warmup_steps: 0}", True, None),
        ("engine.understander.weight_decay=0", True, None),
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
    told = refused(first)
    assert told.startswith(f"error: the run {run} has another writer; got process {os.getpid()} on")
    assert told.endswith("; wait until it ends, or choose another RUN")
    assert (second.code, second.errors) == (2, [])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"\xff", "'utf-8' codec"),
        (b"{", "Expecting property name"),
        (b"[]", "has no attribute"),
        (b'{"understanding": 3}', "understanding.before of a report; got int; expected an object"),
        (b'{"understanding": {"accuracy": "x"}}', "understanding.before.accuracy; got 'x'"),
        (b'{"tasks": {"valence": [1]}}', "tasks.before.valence of a report; got list"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_scores_that_cannot_be_read(tmp_path, text, what):
    path = tmp_path / "before.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=f"before.json cannot be read; got .*{what}.*put it back"):
        _scores_of(path)


def edit(run: Path, old: str, new: str) -> None:
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new))


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
    """Met in the second micro-batch; the state of before is saved, and the run can go on."""
    run, straight = tmp_path / "run", tmp_path / "straight"
    args = ("run", preset(**compress(4, engine={"gradient_accumulation_steps": 2})), "--run")
    message = refused(train(*args, run, before=poison))
    assert message.startswith(f"error: step 2 (compress) was refused; got {what} for images ")
    assert seen(world, step=2, row=2 if poison is probes.poison_loss else 0) in message
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-0000002"]
    assert train("resume", run).code == 0
    assert train(*args, straight).code == 0
    assert probes.rows(run) == probes.rows(straight)
    for path in (straight / "model").rglob("*.safetensors"):
        assert path.read_bytes() == (run / path.relative_to(straight)).read_bytes()


def test_a_learning_rate_that_blows_up(tmp_path, preset):
    """The advice of the message works: lower it, and go back by one checkpoint."""
    run = tmp_path / "run"
    rate = {"understander": {"learning_rate": 1e35, "warmup_steps": 0}}
    done = train("run", preset(**compress(4, engine=rate), save_every=1), "--run", run)
    message = refused(done)
    step = len(probes.rows(run))
    assert step < 4
    assert f"step {step} (compress) was refused" in message
    assert "lower the learning rate and delete the newest checkpoint" in message
    shutil.rmtree(run / "checkpoints" / f"step-{step:07d}")
    assert train("resume", run, "engine.understander.learning_rate=1e-3").code == 0
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
