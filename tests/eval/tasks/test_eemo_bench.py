"""Published answers of two models to EEmo-Bench's pairs, with the published verdict on each.

Runs where the reference data lies beside the repository.
"""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path

import pytest

from emosym.records import Question
from emosym.tasks.answers import parse
from eval.tasks.measure import score_answers

KNOWN = {
    ("deepseek_vl", 24): "judged right: describes both pictures at length and names no option",
    ("deepseek_vl", 147): "judged right: repeats the question with its options, no more",
    ("deepseek_vl", 290): "judged right: describes both dogs, names no option; nearest to B, not A",
    ("qwen2-7b", 34): "judged right: 'yes' can be inferred from its description, and is not said",
    ("qwen2-7b", 117): "judged right: 'yes' can be inferred from its description, and is not said",
    ("qwen2-7b", 147): "judged right: finds B, C and D all true, and does not choose",
    ("qwen2-7b", 1080): "judged right: describes both pictures, names no option",
    ("qwen2-7b", 1149): "judged wrong: writes a paragraph under A and one under B, true is B",
    ("qwen2-7b", 1867): "judged right: chooses the first picture twice, true is the second",
    ("qwen2-7b", 2076): "judged right: repeats the question with its options, no more",
    ("qwen2-7b", 2195): "judged right: repeats the options, describes both, does not choose",
}
"""Where our reading and the published verdict part, and what the answer does."""

TABLE = {"deepseek_vl": (52.88, 38.71), "qwen2-7b": (54.97, 54.43)}
"""Pairs, yes-no and what/how, in percent. Ref: EEmo-Bench (arXiv 2504.16405), main table."""


def recorded(shared: Path, model: str) -> list[tuple[Question, str, object, int]]:
    """Return each multiple choice with its answer, its verdict, and whether it was unreadable."""
    with gzip.open(shared / "eemo_bench" / f"{model}-pair.json.gz", "rt") as file:
        records = [r for r in json.load(file) if r["question_type"] != "Open_ended"]
    return [
        (
            Question(
                id=str(r["id"]),
                task="perception",
                images=(Path(r["image1_url"]), Path(r["image2_url"])),
                split="test",
                text=r["question"],
                truth={"answer": r["correct_answer"]},
                options=ast.literal_eval(r["options"]),
                aspect=(r["perceptual_dimension"] or "").partition(" ")[0].lower(),
            ),
            r[f"response({model})"],
            r[f"eval_result({model})"],
            r[f"if_invalid({model})"],
        )
        for r in records
    ]


@pytest.mark.parametrize("model", TABLE)
def test_the_published_verdicts_come_out(shared: Path, model: str) -> None:
    items = recorded(shared, model)
    assert len(items) == 2012
    parted = set()
    for question, text, verdict, invalid in items:
        letter = parse(text, question, lenient=True).values.get("answer")
        if invalid:  # one record: unreadable for them too, judged as free text five times
            assert letter is None
        elif (letter == question.truth["answer"]) != bool(verdict):
            parted.add((model, int(question.id)))
    assert parted == {key for key in KNOWN if key[0] == model}


@pytest.mark.parametrize("model", TABLE)
def test_the_published_accuracies_come_out(shared: Path, model: str) -> None:
    items = recorded(shared, model)
    questions, texts = [item[0] for item in items], [item[1] for item in items]
    scores = score_answers(questions, texts, seed=0, lenient=True, resamples=20)["perception"]
    assert scores.count == 2012
    found = scores.metrics
    # 1006 questions of each kind: an answer is 0.1 points; the known cases part by up to five.
    yes_no, what_how = TABLE[model]
    assert found["pair_yes_no"] * 100 == pytest.approx(yes_no, abs=0.25)
    assert found["pair_what_how"] * 100 == pytest.approx(what_how, abs=0.55)
    assert found["accuracy"] == pytest.approx((found["pair_yes_no"] + found["pair_what_how"]) / 2)
    for aspect, count in {"emotion": 917, "valence": 348, "arousal": 294, "dominance": 291}.items():
        verdicts = [verdict for question, _, verdict, _ in items if question.aspect == aspect]
        assert len(verdicts) == count
        assert found[aspect] == pytest.approx(sum(verdicts) / count), "no known case is in here"
