"""Contracts of every task and every reward, and the task of CONTRIBUTING.md as a plugin."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest

from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from data_tools.questions.build import build_questions
from emosym.errors import UserError
from emosym.plugins import load_plugin
from emosym.records import Question, Sample
from emosym.tasks.answers import parse
from emosym.tasks.base import Answer, Reader, Reward, Task
from emosym.tasks.registry import REWARDS, TASKS, image_tasks, reader_of, register_task, score
from eval.tasks.measure import score_answers

ROOT = Path(__file__).resolve().parents[3]
PROMPTS = {
    "affect": "Which emotion does this image evoke? Give valence and arousal from -3 to 3.",
    "arousal": "Rate the arousal that this image evokes, from 0 to 1. Reason in <think></think>,"
    " then answer in <answer>Arousal: x.xxxx</answer>.",
    "description": "Which emotions does this image evoke, and why? Reason in <think></think>, then"
    " answer in <answer>sentences</answer>.",
}
"""Texts that shipped models were trained on."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("tasks") / "world"
    write_world(folder, 48, seed=4, size=16)
    return open_dataset(folder)


@pytest.fixture(scope="module")
def questions(samples) -> dict[str, list[Question]]:
    return {task: build_questions(samples, [task], seed=2) for task in TASKS}


@pytest.mark.parametrize("name", TASKS)
class TestEveryTask:
    def test_goes_by_its_name_and_has_keys_a_title_and_metrics(self, name):
        task = TASKS[name]
        assert task.name == name
        assert task.keys
        assert task.title
        assert task.metrics
        assert (task.free_text is None) != (not task.readers)

    def test_has_titled_metrics_and_every_one_has_an_interval(self, name, questions):
        texts = [question.answer for question in questions[name]]
        (scores,) = score_answers(questions[name], texts, seed=0, resamples=20).values()
        assert scores.metrics.pop("well_formed") == 1.0
        assert scores.metrics.keys() <= TASKS[name].metrics.keys()
        assert scores.metrics
        for metric, value in scores.metrics.items():
            best = 0.0 if TASKS[name].metrics[metric][1] == "lower" else 1.0
            assert value == pytest.approx(best, abs=0.03), metric  # affect rounds to tenths

    def test_gives_undefined_metrics_without_answers_and_no_nan(self, name):
        for metric, *arrays in TASKS[name].measure([]).values():
            assert metric(*arrays) is None

    def test_reads_its_reference_answers(self, name, questions):
        assert questions[name]
        for question in questions[name]:
            answer = parse(question.answer, question)
            assert answer.well_formed
            assert answer.values.keys() == question.truth.keys() <= set(TASKS[name].keys)
            bare = TASKS[name].reply(question.truth, question.scale)
            assert bare.startswith("<think></think><answer>")
            assert question.answer.endswith(bare.removeprefix("<think></think>"))

    def test_builds_the_same_questions_from_samples_in_any_order(self, name, questions, samples):
        again = build_questions(samples[::-1], [name], seed=2)
        assert sorted(again, key=str) == sorted(questions[name], key=str)
        assert len({question.id for question in again}) == len(again)
        assert {question.task for question in again} == {name}

    def test_reads_any_text_without_an_error(self, name, questions):
        question = questions[name][0]
        for text in ("", ";:;", "Answer: A", "0.5", "joy, fear", "<answer>", "\x00"):
            for lenient in (False, True):
                values = parse(f"<answer>{text}</answer>", question, lenient=lenient).values
                assert None not in values.values()

    def test_asks_its_prompt_about_every_image(self, name, questions):
        if TASKS[name].prompt is not None:
            assert {question.text for question in questions[name]} == {TASKS[name].prompt}
            assert all(len(question.images) == 1 for question in questions[name])
            assert name in image_tasks()

    def test_names_rewards_that_are_registered(self, name):
        for reward, found in TASKS[name].rewards.items():
            assert REWARDS[reward] is found


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_is_largest_for_the_reference_and_finite_for_anything(name, questions):
    reward = REWARDS[name]
    built = [q for group in questions.values() for q in group[:8] if reward.applies(q)]
    assert built
    for question in built:
        truth = Answer(True, question.truth)
        best = score(truth, question, {name: 2.0})
        assert best == {name: pytest.approx(max(best[name], 0)), "total": 2 * best[name]}
        assert reward.score(Answer(False, {}, fill=1.0), question) <= best[name]
        assert (
            reward.score(Answer(False, {key: "?" for key in ("answer",)}), question) <= best[name]
        )


def test_texts_that_models_were_trained_on_stay() -> None:
    assert {name: TASKS[name].prompt for name in PROMPTS} == PROMPTS


def test_the_registry_loads_without_torch() -> None:
    code = "import sys, emosym.tasks.registry, emosym.cli; sys.exit('torch' in sys.modules)"
    path = {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | path).returncode == 0


@pytest.fixture
def registries() -> Iterator[None]:
    """Restore tasks, rewards and modules after a test."""
    with patch.dict(TASKS), patch.dict(REWARDS), patch.dict(sys.modules):
        yield


TOY = Task(
    name="toy",
    title="a toy",
    readers={"toy": Reader(lambda text, question: text or None)},
    measure=lambda answered: {},
    metrics={"accuracy": ("accuracy", "higher")},
)


@pytest.mark.usefixtures("registries")
def test_a_task_never_replaces_another() -> None:
    register_task(TOY)
    assert reader_of("toy") is TOY.readers["toy"]
    with pytest.raises(UserError, match="the task 'toy' exists already"):
        register_task(TOY)
    with pytest.raises(UserError, match="the answer key 'valence' of the task 'a' has another"):
        register_task(replace(TOY, name="a", readers={"valence": TOY.readers["toy"]}))
    register_task(replace(TOY, name="b", readers={"valence": TASKS["valence"].readers["valence"]}))
    taken = {"format": Reward(lambda answer, question: 1.0)}
    with pytest.raises(UserError, match="the reward 'format' exists already"):
        register_task(replace(TOY, name="c", rewards=taken))
    assert "c" not in TASKS
    with pytest.raises(UserError, match="'toy' are not built from samples"):
        build_questions([], ["toy"], seed=0)


def walk_through(folder: Path) -> Path:
    """Write the Python code of CONTRIBUTING.md, "A task of your own", into a file."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## A task of your own\n")[1].split("\n## ")[0]
    file = folder / "brightness.py"
    file.write_text("\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL)))
    return file


@pytest.fixture
def plugin(tmp_path, registries) -> ModuleType:
    return load_plugin(walk_through(tmp_path))


def test_the_task_of_contributing_keeps_the_contracts(plugin, samples) -> None:
    task = TASKS["brightness"]
    assert task is plugin.BRIGHTNESS
    built = build_questions(samples, ["brightness"], seed=0)
    assert len(built) == len(samples)
    right = [f"<think></think>{q.answer.removeprefix('<think></think>')}" for q in built]
    scores = score_answers(built, right, seed=0)["brightness"]
    assert scores.metrics == {"well_formed": 1.0, "accuracy": 1.0}
    wrong = parse("<answer>Brightness: grey</answer>", built[0])
    assert wrong.values == {}
    weights = {"brightness": 2.0, "brief": 1.0, "emotion": 1.0}
    assert score(replace(wrong, fill=0.25), built[0], weights) == {
        "brightness": 0.0,
        "brief": 0.75,
        "total": 0.75,
    }


def test_the_task_of_contributing_is_evaluated_by_the_command(tmp_path) -> None:
    file = walk_through(tmp_path)
    write_world(tmp_path / "world", 64, seed=5)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "eval", "run", "emosym-tiny", tmp_path / "world"),
            *("--out", tmp_path / "out", "--tasks", "brightness", "--plugin", file),
            *("--count", "1", "--answer-tokens", "16"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "brightness: accuracy" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["tasks"]["after"]["brightness"]["count"] > 0
