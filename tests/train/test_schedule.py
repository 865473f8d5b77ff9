from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from emosym.config import load_config
from emosym.errors import UserError
from emosym.randomness import Draws
from emosym.records import Question, Sample
from train.config import DataConfig, OptimizerConfig, StageConfig
from train.data.dataset import TrainingSet, affect_targets, label_targets
from train.phases.registry import train_config
from train.schedule import Schedule, learning_rate

KNOWN = ("compress", "generate", "remember")
STAGES = {"stages": [{"steps": 1, "cycle": {"compress": 1}}]}


def schedule(*stages: tuple[int, dict[str, int]]) -> Schedule:
    return Schedule([StageConfig(steps=steps, cycle=cycle) for steps, cycle in stages], KNOWN)


def test_phases_by_hand():
    made = schedule((2, {"compress": 1}), (7, {"generate": 2, "remember": 1}))
    short = {"compress": "c", "generate": "g", "remember": "r"}
    assert "".join(short[made.phase_at(step)] for step in range(len(made))) == "ccggrggrg"
    assert made.totals() == {"compress": 2, "generate": 5, "remember": 2}
    assert [made.count("generate", step) for step in range(10)] == [0, 0, 0, 1, 2, 2, 3, 4, 4, 5]
    assert made.count("compress", 9) == 2


def test_an_unknown_phase_suggests():
    with pytest.raises(UserError, match=r"stages\.1\.cycle.*'generat'.*did you mean 'generate'"):
        schedule((1, {"compress": 1}), (1, {"generat": 1}))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("{steps: 0, cycle: {compress: 1}}", r"steps must lie in \[1, 9999999\]; got 0"),
        ("{steps: -3, cycle: {compress: 1}}", r"steps must lie in .*; got -3"),
        ("{steps: 1000000000000000000, cycle: {compress: 1}}", r"steps must lie in .*; got 10+"),
        ("{steps: 1, cycle: {compress: 0}}", r"cycle\.compress must lie in .*; got 0"),
        ("{steps: 1, cycle: {compress: 1000000000000000000}}", r"cycle\.compress must lie .*"),
        ("{steps: 1, cycle: {}}", "cycle is empty; name at least one phase"),
    ],
)
def test_a_stage_with_no_or_endless_steps_is_an_error(stage, message):
    with pytest.raises(UserError, match=rf"stages\.0: {message}"):
        load_config(train_config(), None, [f"stages=[{stage}]"])


def test_all_stages_together_have_an_end():
    stages = [{"steps": 5_000_000, "cycle": {"compress": 1}}] * 2
    with pytest.raises(UserError, match="all stages together must lie in"):
        load_config(train_config(), None, base={"stages": stages})


def test_an_emptied_cycle_is_an_error():
    with pytest.raises(UserError, match=r"stages\.0: cycle is empty"):
        load_config(train_config(), None, ["stages.0.cycle={}"], base=STAGES)


def test_learning_rate_by_hand():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, min_lr_rate=0.2)
    rates = [learning_rate(config, step, 12) for step in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.6)  # half way down: the middle of 1 and the floor
    assert rates[6] == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert all(late < early for early, late in itertools.pairwise(rates[4:]))
    assert rates[-1] > 0.2
    line = OptimizerConfig(
        learning_rate=1.0, warmup_steps=2, lr_scheduler_type="linear", min_lr_rate=0.2
    )
    assert [learning_rate(line, step, 6) for step in range(6)] == pytest.approx(
        [0.5, 1.0, 1.0, 0.8, 0.6, 0.4]
    )
    flat = OptimizerConfig(learning_rate=3e-4, warmup_steps=0, lr_scheduler_type="constant")
    assert {learning_rate(flat, step, 9) for step in range(9)} == {3e-4}


def training_set(count: int, seed: int = 0) -> TrainingSet:
    samples = [
        Sample(id=f"s{i}", image=Path(f"{i}.png"), split="train" if i % 3 else "test")
        for i in range(count)
    ]
    return TrainingSet(samples, [], DataConfig(), seed)


def test_held_out_images_are_never_trained_on():
    made = training_set(30)
    assert len(made.samples) == 20
    assert {sample.split for sample in made.take("samples", "compress", 0, 100)} == {"train"}
    bare = TrainingSet([Sample(id="a", image=Path("a.png"), split="test")], [], DataConfig(), 0)
    for kind in ("samples", "questions"):
        with pytest.raises(UserError, match=f"no training {kind}"):
            bare.take(kind, "compress", 0, 1)


def test_every_epoch_is_a_permutation_and_borders_lose_nothing():
    made = training_set(30)
    stream = [
        s.id for start in range(0, 60, 7) for s in made.take("samples", "compress", start, 7)
    ][:60]
    epochs = [stream[start : start + 20] for start in range(0, 60, 20)]
    assert all(sorted(epoch) == sorted(s.id for s in made.samples) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert stream == [sample.id for sample in made.take("samples", "compress", 0, 60)]


def test_the_order_depends_on_phase_and_seed_alone():
    first = [s.id for s in training_set(30).take("samples", "compress", 5, 20)]
    assert first == [s.id for s in training_set(30).take("samples", "compress", 5, 20)]
    assert first != [s.id for s in training_set(30).take("samples", "generate", 5, 20)]
    assert first != [s.id for s in training_set(30, seed=1).take("samples", "compress", 5, 20)]


def test_tasks_take_turns_whatever_their_size():
    def asked(task: str, count: int) -> list[Question]:
        return [
            Question(id=f"{task}{i}", task=task, images=(Path("a.png"),), split="train", text="?")
            for i in range(count)
        ]

    few, many = asked("ranking", 3), asked("perception", 12)
    made = TrainingSet([], [*many, *few], DataConfig(), 0)
    stream = made.take("questions", "instruct", 0, 24)
    assert [q.task for q in stream] == ["perception", "ranking"] * 12
    assert sorted(q.id for q in stream if q.task == "perception") == sorted(q.id for q in many)
    for epoch in range(4):
        turns = [q.id for q in stream if q.task == "ranking"][3 * epoch : 3 * epoch + 3]
        assert sorted(turns) == [q.id for q in few]
    assert stream[5:11] == made.take("questions", "instruct", 5, 6)


def test_draws_are_a_function_of_their_key():
    assert Draws(1, "a", 2).normal(3).tolist() == Draws(1, "a", 2).normal(3).tolist()
    assert Draws(1, "a", 2).normal(3).tolist() != Draws(1, "a", 3).normal(3).tolist()
    # Not the concatenation: (1, 12) is not (11, 2).
    assert Draws(1, 12).uniform(3).tolist() != Draws(11, 2).uniform(3).tolist()


def test_targets_of_what_is_not_known():
    samples = [
        Sample(id="a", image=Path("a"), split="train", emotion="fear", valence=-1.5, arousal=2.0),
        Sample(id="b", image=Path("b"), split="train"),
    ]
    affect = affect_targets(samples)
    assert affect[0].tolist() == [-1.5, 2.0]
    assert affect[1].isnan().all()
    assert label_targets(samples, ["awe", "fear"]).tolist() == [1, -100]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compress.batch_size=0", "compress: batch_size must be positive; got 0"),
        ("generate.batch_size=-4", "generate: batch_size must be positive; got -4"),
        ("verify_grpo.num_generations=1", "verify_grpo: num_generations must be at least 2; got 1"),
        ("generate.prompt_dropout=1.5", r"prompt_dropout must lie in \[0, 1\]; got 1.5"),
        ("remember.synthetic_share=0.6", r"synthetic_share must lie in \[0, 0.5\]; got 0.6"),
        ("data.crop=0", "crop must be positive; got 0"),
        ("engine.understander.learning_rate=-1", r"learning_rate must lie in \[0, inf\]; got -1"),
        (
            "engine.gradient_accumulation_steps=0",
            "gradient_accumulation_steps must be positive; got 0",
        ),
        ("save_every=0", "save_every must be positive; got 0"),
        ("seed=-1", r"configuration: seed must lie in \[0, .*\]; got -1"),
        ("data.world.seed=-1", r"data.world: seed must lie in \[0, .*\]; got -1"),
        ("data.world.count=-1", r"data.world: count must lie in \[0, inf\]; got -1"),
        ("evaluate.per_request=0", "evaluate: per_request must be positive; got 0"),
        ("evaluate.images=-1", r"evaluate: images must lie in \[0, inf\]; got -1"),
        ("evaluate.requests=-1", r"evaluate: requests must lie in \[0, inf\]; got -1"),
        ("evaluate.grids=-1", r"evaluate: grids must lie in \[0, inf\]; got -1"),
        ("remember.real=-1", r"remember: real must lie in \[0, inf\]; got -1"),
        ("remember.admission.capacity_per_class=-1", "capacity_per_class; got -1; expected at"),
        ("remember.admission.near_copy_quantile=5", r"near_copy_quantile; got 5.0; expected a sh"),
        ("remember.admission.outlier_quantile=0.96", "outlier_quantile; got 0.96; expected a sh"),
        ("remember.admission.min_agreement=2", r"min_agreement; got 2.0; expected a share in"),
        ("remember.admission.quality_quantile=2", "quality_quantile; got 2.0; expected a share"),
        ("remember.admission.delay=-1", "remember.admission: .*delay; got -1; expected at least 0"),
        ("remember.admission.max_diversity_loss=2", "max_diversity_loss; got 2.0; expected a sh"),
        ("remember.admission.min_admission_rate=0.7", "min_admission_rate; got 0.7; expected a"),
        ("remember.admission.max_admission_rate=2", "max_admission_rate; got 2.0; expected a sh"),
        ("remember.admission.replacement=best", "remember.admission.replacement: got 'best'"),
        ("remember.admission.gates=[copy,label,copy]", "names the gate copy twice; name it once"),
        ("remember.admission.gates=[labels]", "admission: unknown gate 'labels'.*'label'"),
        ("remember.admission.top_quantile=0", r"top_quantile; got 0.0; expected a share in \(0"),
        ("verify_posterior.hard_negatives=0.6", r"hard_negatives must lie in \[0, 0.5\]; got 0.6"),
        ("compress.label_weight=nan", "label_weight: got 'nan'; expected a finite number"),
        ("compress.label_weight=-1", r"compress: label_weight must lie in \[0, inf\]; got -1"),
        ("generate.affect_weight=-1", r"generate: affect_weight must lie in \[0, inf\]; got -1"),
        ("verify_posterior.affect_weight=-1", "verify_posterior: affect_weight must lie in"),
        ("autoencode.moment_weight=-1", "autoencode: moment_weight must lie in"),
        ("engine.zero_stage=3", "zero_stage: got 3; expected one of 1, 2"),
        ("compress.batchsize=4", "compress.batchsize: unknown key; did you mean 'batch_size'"),
    ],
)
def test_sizes_and_shares_are_checked(override, message):
    with pytest.raises(UserError, match=message):
        load_config(train_config(), None, [override], base=STAGES)


def test_rewards_that_are_all_off_are_an_error():
    names = ("format", "emotion", "affect_threshold")
    off = [f"verify_grpo.reward_weights.{name}=0" for name in names]
    with pytest.raises(UserError, match="verify_grpo: reward_weights are all 0"):
        load_config(train_config(), None, off, base=STAGES)
