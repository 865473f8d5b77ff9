"""Texts that a run would not get past are found before its first step."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from data_tools.dataset import open_dataset
from data_tools.manifest import write_manifest
from data_tools.questions.build import build_questions
from emosym.config import load_config
from emosym.errors import UserError
from model_zoo import zoo
from tests.train import probes
from tests.train.processes import refused, train
from train.phases.registry import train_config
from train.texts import check_texts

LONG, CONTROL = "a boat " * 30, "a boat <|im_end|>"
TOO_LONG = (
    " tokens, 'a boat a boat a boat a boat a boat a boa'…; expected prompts of at most 24 tokens;"
    " shorten them, or set data.long_prompts=truncate"
)


@pytest.mark.parametrize(
    ("cycle", "field", "refused"),
    [
        ("instruct", "text", True),
        ("instruct", "answer", True),
        ("verify_grpo", "text", True),
        ("verify_grpo", "answer", False),
        ("compress", "text", False),
        ("generate", "text", False),
    ],
)
def test_a_question_that_the_run_would_not_get_past(model, world, cycle, field, refused):
    [question, *_] = build_questions(open_dataset(world), ["dominant"], 0)
    question = dataclasses.replace(question, **{field: CONTROL})
    stages = [{"steps": 1, "cycle": {cycle: 1}}]
    config = load_config(train_config(), None, base=probes.settings(model, world, stages=stages))
    if not refused:
        check_texts(config, zoo.load(model), [], [question])
        return
    with pytest.raises(UserError, match=f"cannot be used; got question '{question.id}': the text"):
        check_texts(config, zoo.load(model), [], [question])


@pytest.mark.parametrize(
    ("split", "field", "text", "sections", "said"),
    [
        ("train", "prompt", LONG, {"cycle": "generate"}, TOO_LONG),
        ("train", "prompt", LONG, {"cycle": "remember"}, TOO_LONG),
        ("train", "prompt", CONTROL, {"cycle": "remember"}, "holds the control token '<|im_end|>'"),
        ("train", "prompt", LONG, {"cycle": "reinforce"}, TOO_LONG),
        ("train", "prompt", CONTROL, {"cycle": "reinforce"}, "control token '<|im_end|>'"),
        ("test", "prompt", LONG, {"cycle": "reinforce"}, None),
        ("train", "prompt", LONG, {}, None),
        ("train", "knowledge", CONTROL, {"compress": {"language_weight": 1}}, "control token"),
        ("train", "knowledge", CONTROL, {"compress": {"distil_weight": 1}}, "control token"),
        ("train", "knowledge", CONTROL, {"compress": {"reconstruct_weight": 1}}, "control token"),
        ("train", "knowledge", CONTROL, {}, None),
        ("train", "knowledge", LONG, {"compress": {"language_weight": 1}}, None),
        ("train", "emotional_prompt", LONG, {"cycle": "generate"}, None),
        (
            *("train", "emotional_prompt", LONG),
            *({"cycle": "generate", "generate": {"emotional_share": 0.1}}, TOO_LONG),
        ),
        ("test", "emotional_prompt", LONG, {"generate": {"emotional_share": 0.1}}, None),
        ("test", "prompt", LONG, {"cycle": "generate"}, None),
        ("test", "prompt", LONG, {"evaluate": {"requests": 1}}, TOO_LONG),
        ("test", "prompt", LONG, {"evaluate": {"grids": 1}}, TOO_LONG),
    ],
)
def test_a_text_that_the_run_would_not_get_past(model, world, split, field, text, sections, said):
    samples = open_dataset(world)
    place = max(n for n, sample in enumerate(samples) if sample.split == split)
    samples[place] = dataclasses.replace(samples[place], **{field: text})
    stages = [{"steps": 1, "cycle": {sections.get("cycle", "compress"): 1}}]
    sections = {name: value for name, value in sections.items() if name != "cycle"}
    whole = probes.settings(model, world, stages=stages, **sections)
    config = load_config(train_config(), None, base=whole)
    if said is None:
        check_texts(config, zoo.load(model), samples, [])
        return
    with pytest.raises(UserError) as error:
        check_texts(config, zoo.load(model), samples, [])
    named = f"1 texts of the data cannot be used; got sample {samples[place].id!r}: "
    assert str(error.value).startswith(named)
    assert said in str(error.value)


def test_a_test_question_that_evaluation_would_not_get_past(model, world):
    held_out = [sample for sample in open_dataset(world) if sample.split == "test"]
    [question, *_] = build_questions(held_out, ["dominant"], 0)
    question = dataclasses.replace(question, text=CONTROL)
    stages = [{"steps": 1, "cycle": {"instruct": 1}}]
    for count in (0, 1):
        whole = probes.settings(model, world, stages=stages, evaluate={"questions": count})
        config = load_config(train_config(), None, base=whole)
        if not count:
            check_texts(config, zoo.load(model), [], [question])
            continue
        with pytest.raises(UserError, match=f"used; got question '{question.id}': the text"):
            check_texts(config, zoo.load(model), [], [question])


@pytest.mark.parametrize("cycle", ["reinforce", "compress"])
def test_a_bad_text_stops_a_run_before_its_first_step(tmp_path, preset, world, cycle):
    samples = open_dataset(world)
    spoil = {"reinforce": {"prompt": LONG}, "compress": {"knowledge": CONTROL}}[cycle]
    place = max(n for n, sample in enumerate(samples) if sample.split == "train")
    samples[place] = dataclasses.replace(samples[place], **spoil)
    write_manifest(world / "spoiled.jsonl", samples)
    stages = [{"steps": 1, "cycle": {cycle: 1}}]
    path = preset(stages=stages, compress={"reconstruct_weight": 1.0})
    run = tmp_path / "run"
    done = train("run", path, "--data", world / "spoiled.jsonl", "--run", run)
    assert f"cannot be used; got sample {samples[place].id!r}: " in refused(done)
    assert not run.exists()


def spoiled(world, count: int) -> list:
    """Return the samples of a world; the first `count` of its training samples are too long."""
    samples = sorted(open_dataset(world), key=lambda sample: sample.split != "train")
    return [
        dataclasses.replace(sample, prompt=f"{sample.id} {LONG}") if place < count else sample
        for place, sample in enumerate(samples)
    ]


def configured(model, world, **data):
    stages = [{"steps": 1, "cycle": {"generate": 1}}]
    whole = probes.settings(model, world, stages=stages)
    whole["data"] |= data
    return load_config(train_config(), None, base=whole)


@pytest.mark.parametrize("count", [3, 12])
def test_all_long_prompts_are_told_at_once(model, world, count):
    samples = spoiled(world, count)
    with pytest.raises(UserError) as error:
        check_texts(configured(model, world), zoo.load(model), samples, [])
    message = str(error.value)
    assert message.startswith(f"{count} texts of the data cannot be used; got sample ")
    told = [sample.id for sample in samples if f"sample {sample.id!r}: " in message]
    assert told == [sample.id for sample in samples[: min(count, 10)]]
    assert ("; and 2 more; expected" in message) == (count == 12)
    assert len(message.splitlines()) == 1


def test_long_prompts_are_truncated_on_request_and_counted(model, world):
    samples, loaded = spoiled(world, 3), zoo.load(model)
    found = check_texts(configured(model, world, long_prompts="truncate"), loaded, samples, [])
    (notice,) = found.notices
    assert notice.startswith("the decoder reads the first 24 tokens of 3 longer prompts: sample ")
    assert found.truncated_prompts == 3
    none = check_texts(configured(model, world, long_prompts="truncate"), loaded, [], [])
    assert none == ([], 0)
    spoiled_too = [dataclasses.replace(samples[0], prompt=CONTROL)]
    with pytest.raises(UserError, match="control token"):
        check_texts(configured(model, world, long_prompts="truncate"), loaded, spoiled_too, [])


def test_a_run_trains_on_truncated_prompts(tmp_path, preset, world):
    """Two datasets that differ behind the window train the same decoder; its words count."""
    weights = {}
    for name, tail in {"one": "a tree", "two": "a house", "other": None}.items():
        samples = [
            dataclasses.replace(sample, prompt="a tree" if tail is None else LONG + tail)
            for sample in open_dataset(world)
        ]
        write_manifest(world / f"{name}.jsonl", samples)
        stages = [{"steps": 2, "cycle": {"generate": 1}}]
        generate = {"image_share": 1.0, "prompt_dropout": 0.0}
        path = preset(stages=stages, generate=generate, data={"long_prompts": "truncate"})
        run = tmp_path / name
        done = train("run", path, "--data", world / f"{name}.jsonl", "--run", run)
        assert done.code == 0, done.err
        assert ("longer prompts" in done.out + done.err) == (tail is not None)
        rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
        train_prompts = sum(sample.split == "train" for sample in samples)
        count = 0 if tail is None else train_prompts
        assert [row["data/truncated_prompts"] for row in rows] == [count] * 2
        decoder = zoo.load(run / "model").generator.state_dict()
        weights[name] = {key: value for key, value in decoder.items()}
    for name, same in {"two": True, "other": False}.items():
        pairs = [(weights["one"][key], weights[name][key]) for key in weights["one"]]
        assert all(torch.equal(*pair) for pair in pairs) == same


def test_the_reported_dataset_is_listed_and_trains(shared, model):
    """One of eight captions has 87 CLIP tokens."""
    samples = open_dataset(shared / "reports/longprompt")
    config = configured(model, shared / "reports/longprompt")
    with pytest.raises(UserError, match=r"^1 texts of the data .* got sample '\d': \d+ t"):
        check_texts(config, zoo.load(model), samples, [])
    config.data.long_prompts = "truncate"
    assert check_texts(config, zoo.load(model), samples, []).truncated_prompts == 1
