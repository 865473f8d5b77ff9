"""Texts that a run would not get past are found before its first step."""

from __future__ import annotations

import dataclasses

import pytest

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
    with pytest.raises(UserError, match=f"^question '{question.id}' cannot be used: the text"):
        check_texts(config, zoo.load(model), [], [question])


@pytest.mark.parametrize(
    ("split", "field", "text", "sections", "said"),
    [
        ("train", "prompt", LONG, {"cycle": "generate"}, "; expected at most 24; shorten"),
        ("train", "prompt", LONG, {"cycle": "remember"}, "tokens; expected at most 24; shorten"),
        ("train", "prompt", CONTROL, {"cycle": "remember"}, "holds the control token '<|im_end|>'"),
        ("train", "prompt", LONG, {"cycle": "reinforce"}, "tokens; expected at most 24; shorten"),
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
            *({"cycle": "generate", "generate": {"emotional_share": 0.1}}, "at most 24; shorten"),
        ),
        ("test", "emotional_prompt", LONG, {"generate": {"emotional_share": 0.1}}, None),
        ("test", "prompt", LONG, {"cycle": "generate"}, None),
        ("test", "prompt", LONG, {"evaluate": {"requests": 1}}, "tokens; expected at most 24"),
        ("test", "prompt", LONG, {"evaluate": {"grids": 1}}, "tokens; expected at most 24"),
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
    assert str(error.value).startswith(f"sample {samples[place].id!r} cannot be used: the ")
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
        with pytest.raises(UserError, match=f"^question '{question.id}' cannot be used: the text"):
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
    assert f"sample {samples[place].id!r} cannot be used" in refused(done)
    assert not run.exists()
