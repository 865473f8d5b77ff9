from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from data_tools.questions.build import WORLD_BUILDERS, build_questions, buildable_tasks, builder
from emosym.errors import UserError
from emosym.records import Sample
from emosym.tasks.answers import parse
from emosym.tasks.registry import REWARDS, TASKS, score

VOTES = {"fear": 4, "sadness": 2, "anger": 3, "awe": 1}
KNOWN = Sample(
    id="7",
    image=Path("/a.jpg"),
    split="train",
    emotion="fear",
    valence=-1.5,
    arousal=2.0,
    dominance=0.0,
    prompt="a boat at sea",
    emotional_prompt="a boat at sea, in dark vivid blue light",
    knowledge="A storm nears",
    attributes={"object": ["boat"]},
    votes=VOTES,
)


def one(task: str, sample: Sample = KNOWN):
    (question,) = build_questions([sample], [task], seed=0)
    return question


def test_every_task_has_a_builder():
    assert buildable_tasks() == list(TASKS)
    assert all(callable(builder(task)) for task in TASKS)
    assert [name for name, task in TASKS.items() if task.build is None] == [*WORLD_BUILDERS]


@pytest.mark.parametrize(
    ("task", "truth", "answer"),
    [
        (
            "affect",
            {"emotion": "fear", "valence": -1.5, "arousal": 2.0},
            "<think>A storm nears</think>"
            "<answer>Emotion: fear; Valence: -1.5; Arousal: 2.0</answer>",
        ),
        (
            "valence",
            {"valence": 0.25},
            "<think>A storm nears</think><answer>Valence: 0.2500</answer>",
        ),
        (
            "arousal",
            {"arousal": 0.8333},
            "<think>A storm nears</think><answer>Arousal: 0.8333</answer>",
        ),
        (
            "dominance",
            {"dominance": 0.5},
            "<think>A storm nears</think><answer>Dominance: 0.5000</answer>",
        ),
        (
            "ranking",
            {"emotion ranking": ("fear", "anger", "sadness")},
            "<think>A storm nears</think><answer>Emotion ranking: fear, anger, sadness</answer>",
        ),
        (
            "dominant",
            {"dominant emotion": "fear"},
            "<think>A storm nears</think><answer>Dominant emotion: fear</answer>",
        ),
        (
            "description",
            {
                "description": "A storm nears. It evokes most of all fear, then anger and sadness.",
            },
            "<think></think>"
            "<answer>A storm nears. It evokes most of all fear, then anger and sadness.</answer>",
        ),
    ],
)
def test_a_question_by_hand(task, truth, answer):
    question = one(task)
    assert (question.truth, question.answer) == (truth, answer)
    assert (question.id, question.task) == (f"7/{task}", task)
    assert (question.images, question.split) == ((Path("/a.jpg"),), "train")


@pytest.mark.parametrize("task", TASKS)
def test_the_reference_earns_all_that_can_be_earned(task):
    questions = build_questions([replace(KNOWN, id=name) for name in "789"], [task], seed=1)
    assert questions
    for question in questions:
        answer = parse(question.answer, question)
        assert answer.well_formed
        assert answer.values == question.truth
        weights = {name: 1.0 for name in REWARDS if name != "length"}
        parts = score(answer, question, weights)
        parts.pop("total")
        assert set(parts.values()) == {1.0}


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        ({"votes": None}, {"ranking", "description"}),
        ({"votes": {"fear": 1, "awe": 1, "anger": 0}}, {"ranking", "description"}),
        ({"emotion": None}, {"dominant"}),
        ({"knowledge": None}, {"description"}),
        ({"valence": None}, {"valence", "criticise"}),
        (
            {"valence": None, "arousal": None, "emotion": None},
            {"affect", "valence", "arousal", "dominant", "criticise"},
        ),
        ({"attributes": {}}, {"criticise"}),
        ({"emotional_prompt": None}, {"criticise", "rewrite"}),
        ({"emotional_prompt": "a boat at sea in a storm"}, {"criticise", "rewrite"}),
        ({"prompt": None}, {"criticise", "rewrite"}),
        # A rating without a label or votes implies votes.
        ({"votes": None, "emotion": None}, {"dominant"}),
    ],
)
def test_what_is_not_known_is_not_asked(missing, lost):
    samples = [replace(KNOWN, id=name, **missing) for name in "789"]
    tasks = {question.task for question in build_questions(samples, TASKS, 0)}
    assert set(TASKS) - tasks == lost


def test_tasks_come_one_after_the_other_in_sample_order():
    samples = [replace(KNOWN, id=name) for name in ("b", "a")]
    ids = [question.id for question in build_questions(samples, ["ranking", "affect"], 0)]
    assert ids == ["b/ranking", "a/ranking", "b/affect", "a/affect"]


def test_an_unknown_task_is_reported():
    with pytest.raises(UserError, match=r"unknown task 'rankings'.*did you mean 'ranking'"):
        build_questions([KNOWN], ["rankings"], seed=0)


def test_without_reasons_the_answers_alone_are_left():
    whole, bare = (
        build_questions([KNOWN, replace(KNOWN, id="8")], TASKS, 0, reasons=reasons)
        for reasons in (True, False)
    )
    assert [q.truth for q in whole] == [q.truth for q in bare]
    for full, bare_question in zip(whole, bare, strict=True):
        thought, answer = full.answer.removeprefix("<think>").split("</think>")
        assert bare_question.answer == f"<think></think>{answer}"
        assert bool(thought) == (full.task not in ("description", "rewrite"))
        assert parse(bare_question.answer, bare_question).well_formed
