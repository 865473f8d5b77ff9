"""Bad presets, data and files: one line, exit code 2, nothing half-written, nothing lost."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from data_tools.dataset import open_dataset
from data_tools.manifest import write_manifest
from emosym.errors import UserError
from emosym.models.model import ModelConfig
from tests.train.probes import compress
from tests.train.processes import refused, train, train_in_ranks
from train.config import DataConfig
from train.data.dataset import TrainingSet
from train.evaluation.measure import scores_of
from train.phases.compress import Compress, CompressConfig
from train.phases.generate import Generate, GenerateConfig


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["compress.batchsize=4"], "batchsize: unknown key; did you mean 'batch_size'?"),
        (["stages=[{steps: 1, cycle: {comprss: 1}}]"], "did you mean 'compress'?"),
        (["compress.batch_size=3", "engine.gradient_accumulation_steps=2"], "multiples of 2; ch"),
        (["model=emosym-tini"], "is not a model folder"),
        (["compress.knowledge_encoder=./nowhere"], "'./nowhere' is not a folder"),
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
        (
            world,
            [*label, "verify_posterior.hard_negatives=0.2"],
            "hard_negatives needs a memory bank",
        ),
        (unlabelled, [*draw, f"remember.generated={unlabelled}"], "has images without an emotion"),
        (
            world,
            [*draw, f"remember.generated={world}", "remember.admission.delay=1"],
            "images that no step",
        ),
        (long, draw, f"sample {samples[0].id!r}: "),
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


def test_updates_that_do_not_divide_the_batch(tmp_path, preset):
    options = {"batch_size": 4, "steps_per_generation": 3}
    stages = [{"steps": 1, "cycle": {"verify_grpo": 1}}]
    path = preset(stages=stages, verify_grpo=options)
    assert refused(train("run", path, "--run", tmp_path / "run")) == (
        "error: batch sizes are global and must divide over ranks and micro-batches;"
        " got verify_grpo.batch_size=4 with NPROC=1 and gradient_accumulation_steps=1"
        " and verify_grpo.steps_per_generation=3; expected multiples of 3; change NPROC,"
        " engine.gradient_accumulation_steps, verify_grpo.steps_per_generation or"
        " verify_grpo.batch_size"
    )


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
        message = refused(train("run", preset(**compress(1)), "--run", run))
        assert message.endswith("; correct it, then start the run again, or choose another RUN")
    assert (tmp_path / "file").read_text() == "mine"
    done = train("resume", tmp_path / "full")
    assert refused(done) == (
        f"error: {tmp_path / 'full'} is not a run folder; got no config.yaml in it;"
        " expected RUN=<folder of a run>"
    )


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
        scores_of(path)
