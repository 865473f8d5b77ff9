from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from data_tools.questions.build import build_questions
from emosym.affect.ranking import ranking_score
from emosym.affect.scales import PUBLIC, SAM9, UNIT
from emosym.affect.taxonomies import EKMAN7
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.records import Question
from emosym.tasks.answers import parse
from emosym.tasks.registry import TASKS
from eval.tasks.measure import TaskScores, evaluate_tasks, score_answers


def ask(task: str, truth: dict, images: int = 1, **given: object) -> Question:
    return Question(
        id="q",
        task=task,
        images=(Path("a.png"), Path("b.png"))[:images],
        split="test",
        text="?",
        truth=truth,
        **given,
    )


def reply(facts: str) -> str:
    return f"<think>dark sky</think><answer>{facts}</answer>"


def scored(answered: list[tuple[Question, str]], **options: object) -> TaskScores:
    """Score the answers to questions of one task."""
    questions, texts = zip(*answered, strict=True)
    ((task, scores),) = score_answers(questions, texts, seed=0, **options).items()
    assert task == questions[0].task
    assert scores.count == len(answered)
    assert scores.intervals.keys() == scores.metrics.keys()
    for name, interval in scores.intervals.items():
        if interval is not None and name not in ("srcc", "plcc"):
            assert interval[0] <= scores.metrics[name] <= interval[1], name
    json.dumps(scores.to_dict(), allow_nan=False)
    return scores


def test_a_rating_by_hand() -> None:
    answered = [
        (ask("valence", {"valence": 0.2}, scale=UNIT), reply("Valence: 0.3")),
        (ask("valence", {"valence": 0.4}, scale=UNIT), reply("Valence: 1.4")),
        (ask("valence", {"valence": 0.6}, scale=UNIT), reply("Valence: 0.6")),
        (ask("valence", {"valence": 0.8}, scale=UNIT), "<answer>Valence: 0.9</answer>"),
    ]
    found = scored(answered).metrics
    assert found["well_formed"] == 0.5
    assert found["answered"] == 0.75, "1.4 is off the scale: no number"
    assert found["mae"] == pytest.approx((0.1 + 0.0 + 0.1) / 3)
    assert found["srcc"] == pytest.approx(1.0)
    # Said 0.3, 0.6, 0.9; true 0.2, 0.6, 0.8, around 8/15: -5/15, 1/15, 4/15.
    squares = (25 + 1 + 16) / 225
    assert found["plcc"] == pytest.approx((0.3 * 5 / 15 + 0.3 * 4 / 15) / math.sqrt(0.18 * squares))


def test_an_error_is_in_units_of_the_questions_scale() -> None:
    answered = [(ask("arousal", {"arousal": 4.0}, scale=SAM9), reply("Arousal: 6.5"))]
    found = scored(answered)
    assert found.metrics["mae"] == 2.5
    assert found.metrics["srcc"] is found.metrics["plcc"] is None
    assert found.intervals["mae"] is None, "one answer has no spread"
    other = (ask("arousal", {"arousal": 0.0}, scale=PUBLIC), reply("Arousal: 0.0"))
    with pytest.raises(UserError, match=r"arousal on different scales; got \[-3, 3\] and \[1, 9\]"):
        scored([*answered, other])


def test_ratings_that_nobody_gives_are_undefined() -> None:
    found = scored([(ask("dominance", {"dominance": 0.5}, scale=UNIT), "I cannot say")] * 3)
    assert found.metrics == {
        **dict.fromkeys(("srcc", "plcc", "mae")),
        **dict.fromkeys(("well_formed", "answered"), 0.0),
    }


def test_dominant_emotions_by_hand() -> None:
    def dominant(true: str) -> Question:
        return ask("dominant", {"dominant emotion": true}, labels=EKMAN7)

    answered = [
        (dominant("joy"), reply("Dominant emotion: joy")),
        (dominant("fear"), reply("Dominant emotion: joy")),
        (dominant("fear"), reply("Dominant emotion: awe")),
        (dominant("fear"), reply("Dominant emotion: fear")),
    ]
    found = scored(answered).metrics
    assert found["well_formed"] == 0.75
    assert found["accuracy"] == 0.5
    # Joy: precision 1/2, recall 1, F1 2/3. Fear: precision 1, recall 1/3, F1 1/2. Awe: unsaid.
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_rankings_by_hand() -> None:
    true = ("fear", "anger", "neutral")
    question = ask("ranking", {"emotion ranking": true}, labels=EKMAN7)
    answered = [
        (question, reply("Emotion ranking: fear, disgust, neutral")),
        (question, reply("Emotion ranking: fear, anger, neutral")),
        (question, reply("Emotion ranking: ?")),
    ]
    found = scored(answered).metrics
    assert found["score"] == pytest.approx((0.68333 + 1 + 0) / 3, abs=1e-5)
    assert ranking_score(true, ("fear", "disgust", "neutral")) == pytest.approx(0.25 + 0.1 + 1 / 3)


def test_perception_by_hand() -> None:
    yes_no = {"options": {"A": "Yes.", "B": "No."}}
    level = {"options": {"A": "low", "B": "moderate", "C": "high"}}
    answered = [
        (ask("perception", {"answer": "A"}, aspect="emotion", **yes_no), reply("Answer: A")),
        (ask("perception", {"answer": "B"}, aspect="emotion", **yes_no), reply("Answer: A")),
        (ask("perception", {"answer": "C"}, aspect="valence", **level), reply("Answer: C")),
        (ask("perception", {"answer": "A"}, 2, aspect="emotion", **yes_no), "Yes."),
        (ask("perception", {"answer": "C"}, 2, aspect="arousal", **level), reply("Answer: C")),
        (ask("perception", {"answer": "B"}, 2, **level), reply("Answer: D")),
    ]
    found = scored(answered).metrics
    assert found == pytest.approx(
        {
            "well_formed": 4 / 6,
            "accuracy": 3 / 6,  # what cannot be read is wrong
            "single": 2 / 3,
            "single_yes_no": 1 / 2,
            "single_what_how": 1.0,
            "pair": 1 / 3,
            "pair_yes_no": 0.0,
            "pair_what_how": 1 / 2,
            "emotion": 1 / 3,
            "valence": 1.0,
            "arousal": 1.0,
        }
    )
    found = scored(answered, lenient=True).metrics
    assert (found["pair_yes_no"], found["accuracy"]) == (1.0, 4 / 6)
    assert found["well_formed"] == 4 / 6, "the form is never read leniently"


def test_descriptions_by_hand() -> None:
    def describe(truth: dict) -> Question:
        return ask("description", truth)

    same = (describe({"description": "abcdef"}), reply("abcdef"))
    # "ab" of "abc": one letter P 1, R 2/3, F2 5·P·R/(4P + R) = 5/7; two P 1, R 1/2, F2 5/9; of the
    # four longer n-grams it has none.
    part = (describe({"description": "abc"}), reply("ab"))
    none = (describe({"description": "abcdef"}), "abcdef")
    found = scored([same, part, none]).metrics
    assert found["chrf"] == pytest.approx((1 + (5 / 7 + 5 / 9) / 6 + 0) / 3, abs=1e-6)
    assert found["well_formed"] == pytest.approx(2 / 3)
    found = scored([(describe({}), reply("Fear, mostly."))])
    assert found.metrics == {"well_formed": 1.0, "chrf": None}, "no reference, no likeness"


def test_critiques_by_hand() -> None:
    question = ask("criticise", {"suggestions": ("dark", "pale")}, 2)
    answered = [
        (question, reply("Suggestions: dark, pale")),
        (question, reply("Suggestions: pale, fog, dark")),
        (question, reply("Suggestions: bright, vivid")),
        (question, "nothing is missing"),
    ]
    shared = pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    assert scored(answered).metrics == {"well_formed": 0.75, "suggestions": shared}


def test_rewrites_by_hand() -> None:
    question = ask("rewrite", {"prompt": "a cat, in dark light"}, 0)
    answered = [
        (question, reply("a cat, in dark light")),
        (question, reply("In dark light: the cat")),
        (question, reply("a cat")),
        (question, "a cat, in dark light"),
    ]
    assert scored(answered).metrics == {"well_formed": 0.75, "exact": 0.25, "kept": 0.5}


def test_affect_by_hand() -> None:
    answered = [
        (
            ask("affect", {"emotion": "fear", "valence": -2.0, "arousal": 1.0}),
            reply("Emotion: fear; Valence: -1.0; Arousal: 1.5"),
        ),
        (ask("affect", {"emotion": "awe", "valence": 2.0}), reply("Emotion: fear; Valence: -1.0")),
        (ask("affect", {"valence": 2.0}), reply("Valence: calm")),
    ]
    assert scored(answered).metrics == {
        "well_formed": pytest.approx(2 / 3),
        "accuracy": 0.5,
        "valence_mae": 2.0,
        "arousal_mae": 0.5,
    }


def test_tasks_are_scored_apart_and_every_task_can_be() -> None:
    assert all(task.measure([]).keys() <= task.metrics.keys() for task in TASKS.values())
    choice = ask("perception", {"answer": "A"}, options={"A": "Yes.", "B": "No."})
    rating = ask("valence", {"valence": 0.5}, scale=UNIT)
    scores = score_answers(
        [choice, rating, choice], [reply("Answer: B"), reply("Valence: 0.5"), ""], seed=0
    )
    assert {task: one.count for task, one in scores.items()} == {"perception": 2, "valence": 1}
    assert scores["valence"].metrics["mae"] == 0.0


def test_the_interval_of_a_share_is_that_of_its_answers() -> None:
    question = ask("perception", {"answer": "A"}, options={"A": "Yes.", "B": "No."})
    texts = [reply("Answer: A")] * 60 + [reply("Answer: B")] * 40
    scores = score_answers([question] * 100, texts, seed=0, resamples=2000)["perception"]
    low, high = scores.intervals["accuracy"]
    margin = 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert (low, high) == pytest.approx((0.6 - margin, 0.6 + margin), abs=0.015)
    again = score_answers([question] * 100, texts, seed=0, resamples=2000)["perception"]
    assert again == scores


def test_bad_input() -> None:
    with pytest.raises(UserError, match="no question to evaluate"):
        score_answers([], [], seed=0)
    with pytest.raises(UserError, match=r"unknown task 'valense'.*did you mean 'valence'"):
        score_answers([ask("valense", {})], [""], seed=0)


def test_the_shipped_model_answers_questions_about_drawn_images(tmp_path: Path) -> None:
    write_world(tmp_path / "world", 160, seed=99)
    held_out = [s for s in open_dataset(tmp_path / "world") if s.split == "test"]
    questions = build_questions(held_out, ["affect"], 0)
    questions += build_questions(held_out[:8], ["valence", "perception"], 0)
    model = EmoSymPipeline.from_pretrained("emosym-tiny")
    scores = evaluate_tasks(model, questions, seed=0, max_tokens=64)
    assert list(scores) == ["affect", "valence", "perception"]
    assert (scores["affect"].count, scores["valence"].count) == (24, 8)
    assert scores["perception"].metrics.keys() >= {"single_yes_no", "pair_what_how", "arousal"}
    affect = scores["affect"].metrics
    assert affect["well_formed"] > 0.9
    assert affect["accuracy"] > 0.6, "the base knows this question"
    assert affect["valence_mae"] < 0.6
    assert scores["valence"].metrics["well_formed"] < 0.5, "and was never asked this one"

    answered = [question for question in questions if question.task == "affect"]
    read = [parse(text, q) for text, q in zip(model.answer(answered), answered, strict=True)]
    right = [
        a.values.get("emotion") == q.truth["emotion"] for a, q in zip(read, answered, strict=True)
    ]
    assert affect["accuracy"] == pytest.approx(np.mean(right))
