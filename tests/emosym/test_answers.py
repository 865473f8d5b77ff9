from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emosym import prompts
from emosym.answers import LONGEST, Answer, parse
from emosym.records import Sample
from emosym.taxonomy import MIKELS8

FACTS = "Emotion: fear; Valence: -1.3; Arousal: 0.9"
ALL = Answer(True, "fear", -1.3, 0.9)
LOOSE = Answer(False, "fear", -1.3, 0.9)
NOTHING = Answer(False)


def said(facts: str, think: str = "dark sky") -> str:
    return f"<think>{think}</think><answer>{facts}</answer>"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (said(FACTS), ALL),
        (f"  \n{said(FACTS)}\n", ALL),
        (said(FACTS, think=""), ALL),
        (f"<think>a</think>\n\n<answer>{FACTS}</answer>", ALL),
        (said("EMOTION:FEAR ;valence:-1.3;  Arousal :+0.9"), ALL),
        (said("Arousal: 0.9"), Answer(True, arousal=0.9)),
        (said("Valence: 3; Arousal: -3.0"), Answer(True, valence=3.0, arousal=-3.0)),
    ],
)
def test_the_form_is_kept(text, answer):
    assert parse(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"<answer>{FACTS}</answer>", LOOSE),
        (f"Well. {said(FACTS)}", LOOSE),
        (f"{said(FACTS)} That is all.", LOOSE),
        (f"<think>a<answer>{FACTS}</answer>", LOOSE),
        (f"<answer>{FACTS}</answer><think>late</think>", LOOSE),
        (said(FACTS, think="<think>twice</think>"), LOOSE),
        (f"<think>a</think><answer><answer>{FACTS}</answer></answer>", LOOSE),
        (said("Emotion: awe") + said(FACTS), LOOSE),
        (said(FACTS) + "<answer>Emotion: aw", LOOSE),
    ],
)
def test_facts_are_read_where_the_form_is_broken(text, answer):
    assert parse(text) == answer


@pytest.mark.parametrize(
    ("facts", "answer"),
    [
        (f"{FACTS};", LOOSE),
        (f"{FACTS}; Dominance: 1.0", LOOSE),
        (f"{FACTS}; fear", LOOSE),
        ("Emotion: fear; Emotion: awe", Answer(False, "fear")),
        ("Valence: 1.0; Valence: 1.0", Answer(False, valence=1.0)),
        ("Emotion: joy; Valence: 2.0", Answer(False, valence=2.0)),
        ("Emotion: fear or awe", NOTHING),
        ("", NOTHING),
        ("fear", NOTHING),
    ],
)
def test_a_fact_that_does_not_parse_breaks_the_form(facts, answer):
    assert parse(said(facts)) == answer


@pytest.mark.parametrize(
    "number",
    [
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e0",
        "3.0000001",
        "3.01",
        "-4",
        "1,5",
        "0x1",
        "1_0",
        "1.",
        ".5",
        "--1",
        "１.５",  # full-width digits
        "٣",  # Arabic-Indic three
        "²",
        "1.5 points",
        "9" * 400,
        "0." + "0" * 400,
        "",
    ],
)
def test_what_is_no_plain_number_on_the_scale_is_unsaid(number):
    assert parse(said(f"Valence: {number}")) == NOTHING
    assert parse(said(f"Emotion: awe; Valence: {number}")) == Answer(False, "awe")


@pytest.mark.parametrize("text", ["", "fear", "<answer>", "</answer>", "<answer>Emotion: fear"])
def test_without_an_answer_nothing_is_said(text):
    assert parse(text) == NOTHING


def test_long_texts_are_not_parsed():
    room = LONGEST - len(said(FACTS, think=""))
    assert parse(said(FACTS, think="x" * room)) == ALL
    assert parse(said(FACTS, think="x" * (room + 1))) == NOTHING
    for flood in ("x", "<answer>", "<think></think>", said(FACTS), "<", "; : "):
        assert parse(flood * (2**20 // len(flood) + 1)) == NOTHING


PIECES = ["<think>", "</think>", "<answer>", "</answer>", "Emotion: ", "Valence: ", ";", "awe", "1"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)))
def test_any_text_gives_an_answer_in_range(text):
    answer = parse(text)
    assert answer.emotion is None or answer.emotion in MIKELS8
    for number in (answer.valence, answer.arousal):
        assert number is None or -3 <= number <= 3
    if answer.well_formed:
        assert answer != Answer(True)
        assert text.strip().startswith("<think>")
        assert text.strip().endswith("</answer>")


on_scale = st.none() | st.floats(-3, 3)


@given(st.none() | st.sampled_from(MIKELS8), on_scale, on_scale)
def test_reference_answers_are_well_formed_and_come_back(emotion, valence, arousal):
    sample = Sample(
        id="s",
        image=Path("s.png"),
        split="train",
        emotion=emotion,
        valence=valence,
        arousal=arousal,
        knowledge="A dark sky weighs on the house.",
    )
    answer = parse(prompts.answer(sample))
    assert answer.well_formed == any(fact is not None for fact in (emotion, valence, arousal))
    assert answer.emotion == emotion
    for found, true in ((answer.valence, valence), (answer.arousal, arousal)):
        assert (found is None) == (true is None)
        assert found is None or abs(found - true) <= 0.05 + 1e-9
