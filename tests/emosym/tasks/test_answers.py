from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emosym.affect.scales import PUBLIC, UNIT
from emosym.affect.taxonomies import EKMAN7, MIKELS8
from emosym.records import Question, Sample
from emosym.tasks.affect import affect_question, affect_reply
from emosym.tasks.answers import LONGEST, parse, reasoning
from emosym.tasks.base import Answer
from emosym.tasks.registry import TASKS

FACTS = "Emotion: fear; Valence: -1.3; Arousal: 0.9"
SAID = {"emotion": "fear", "valence": -1.3, "arousal": 0.9}
ALL = Answer(True, SAID)
LOOSE = Answer(False, SAID)
NOTHING = Answer(False)


def make_question(*keys: str, labels=MIKELS8, scale=PUBLIC, options=()) -> Question:
    """Ask for some keys; what is true of them does not matter to a parser."""
    return Question(
        id="q",
        task="description" if keys == ("description",) else "affect",
        images=(Path("a.png"),),
        split="test",
        text="?",
        truth=dict.fromkeys(keys, 0.0),
        labels=labels,
        scale=scale,
        options=dict.fromkeys(options, "text"),
    )


AFFECT = make_question("emotion", "valence", "arousal")


def reply(facts: str, think: str = "dark sky") -> str:
    return f"<think>{think}</think><answer>{facts}</answer>"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (reply(FACTS), ALL),
        (f"  \n{reply(FACTS)}\n", ALL),
        (reply(FACTS, think=""), ALL),
        (f"<think>a</think>\n\n<answer>{FACTS}</answer>", ALL),
        (reply("EMOTION:FEAR ;valence:-1.3;  Arousal :+0.9"), ALL),
    ],
)
def test_the_form_is_kept(text, answer):
    assert parse(text, AFFECT) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"<answer>{FACTS}</answer>", LOOSE),
        (f"Well. {reply(FACTS)}", LOOSE),
        (f"{reply(FACTS)} That is all.", LOOSE),
        (f"<think>a<answer>{FACTS}</answer>", LOOSE),
        (f"<answer>{FACTS}</answer><think>late</think>", LOOSE),
        (reply(FACTS, think="<think>twice</think>"), LOOSE),
        (f"<think>a</think><answer><answer>{FACTS}</answer></answer>", LOOSE),
        (reply("Emotion: awe") + reply(FACTS), LOOSE),
        (reply(FACTS) + "<answer>Emotion: aw", LOOSE),
    ],
)
def test_facts_are_read_where_the_form_is_broken(text, answer):
    assert parse(text, AFFECT) == answer


@pytest.mark.parametrize(
    ("facts", "answer"),
    [
        (f"{FACTS};", LOOSE),
        (f"{FACTS}; Weight: 1.0", LOOSE),
        ("Emotion: fear; Valence: -1.3", Answer(False, {"emotion": "fear", "valence": -1.3})),
        (f"{FACTS}; fear", LOOSE),
        ("Emotion: fear; Emotion: awe", Answer(False, {"emotion": "fear"})),
        ("Valence: 1.0; Valence: 1.0", Answer(False, {"valence": 1.0})),
        ("Emotion: joy; Valence: 2.0", Answer(False, {"valence": 2.0})),
        ("Emotion: fear or awe", NOTHING),
        ("", NOTHING),
        ("fear", NOTHING),
    ],
)
def test_a_fact_that_does_not_parse_breaks_the_form(facts, answer):
    assert parse(reply(facts), AFFECT) == answer


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
    assert parse(reply(f"Valence: {number}"), AFFECT) == NOTHING
    assert parse(reply(f"Emotion: awe; Valence: {number}"), AFFECT) == Answer(
        False, {"emotion": "awe"}
    )


@pytest.mark.parametrize("text", ["", "fear", "<answer>", "</answer>", "<answer>Emotion: fear"])
def test_without_an_answer_nothing_is_said(text):
    assert parse(text, AFFECT) == NOTHING


def test_long_texts_are_not_parsed():
    room = LONGEST - len(reply(FACTS, think=""))
    assert parse(reply(FACTS, think="x" * room), AFFECT) == ALL
    assert parse(reply(FACTS, think="x" * (room + 1)), AFFECT) == NOTHING
    for flood in ("x", "<answer>", "<think></think>", reply(FACTS), "<", "; : "):
        assert parse(flood * (2**20 // len(flood) + 1), AFFECT) == NOTHING


PIECES = ["<think>", "</think>", "<answer>", "</answer>", "Emotion: ", "Valence: ", ";", "awe", "1"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)))
def test_any_text_gives_an_answer_in_range(text):
    for lenient in (False, True):
        answer = parse(text, AFFECT, lenient=lenient)
        assert answer.values.get("emotion", "awe") in MIKELS8
        for axis in ("valence", "arousal", "dominance"):
            assert -3 <= answer.values.get(axis, 0) <= 3
        if answer.well_formed:
            assert set(AFFECT.truth) <= set(answer.values)
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
    question = affect_question(sample)
    facts = {"emotion": emotion, "valence": valence, "arousal": arousal}
    known = {key: value for key, value in facts.items() if value is not None}
    assert (question is None) == (not known)
    if question is None:
        return
    assert question.answer == affect_reply(sample)
    answer = parse(question.answer, question)
    assert answer.well_formed
    assert set(answer.values) == set(known)
    assert answer.values.get("emotion") == emotion
    for axis in {"valence", "arousal"} & set(known):
        assert abs(answer.values[axis] - known[axis]) <= 0.05 + 1e-9


VALENCE = make_question("valence", scale=UNIT)
RANKING = make_question("emotion ranking", labels=EKMAN7)
DOMINANT = make_question("dominant emotion", labels=EKMAN7)
CHOICE = make_question("answer", options="ABCD")
FREE = make_question("description")
SUGGESTIONS = make_question("suggestions")
PROMPT = replace(make_question("prompt"), task="rewrite")


@pytest.mark.parametrize(
    ("question", "facts", "value"),
    [
        (VALENCE, "Valence: 0.7083", 0.7083),
        (VALENCE, "Valence: 1.0001", None),
        (VALENCE, "Valence: -0.1", None),
        (RANKING, "Emotion ranking: fear, disgust, neutral", ("fear", "disgust", "neutral")),
        (RANKING, "emotion ranking:Fear,FEAR , Joy", ("fear", "joy")),
        (RANKING, "Emotion ranking: joy, pleasure, shock", ("joy", "surprise")),
        (RANKING, "Emotion ranking: fear, anger, joy, neutrality", ("fear", "anger", "joy")),
        (RANKING, "Emotion ranking: fear, awe, joy", None),
        (RANKING, "Emotion ranking: ", None),
        (DOMINANT, "Dominant emotion: Shock", "surprise"),
        (DOMINANT, "Dominant emotion: awe", None),
        (CHOICE, "Answer: b", "B"),
        (CHOICE, "Answer: E", None),
        (CHOICE, "Answer: AB", None),
        (FREE, "Fear, mostly: the dark; the teeth.", "Fear, mostly: the dark; the teeth."),
        (FREE, "  ", None),
        (SUGGESTIONS, "Suggestions: Cold  light, fog", ("Cold light", "fog")),
        (SUGGESTIONS, "Suggestions: fog, fog, rain, sun, snow", ("fog", "rain", "sun")),
        (SUGGESTIONS, "Suggestions: fog, , rain", None),
        (SUGGESTIONS, "Suggestions:", None),
        (PROMPT, " a cat; a dog: both ", "a cat; a dog: both"),
        (PROMPT, " ", None),
    ],
)
def test_every_task_reads_its_own_key(question, facts, value):
    (key,) = question.truth
    answer = parse(reply(facts), question)
    assert answer == Answer(value is not None, {} if value is None else {key: value})


def test_every_key_that_a_reader_knows_is_read_with_every_other():
    """A model may say more than was asked, as long as each part of it says something."""
    both = "Dominant emotion: fear; Valence: 0.5"
    assert parse(reply(both), VALENCE).well_formed
    assert parse(reply(both), VALENCE).values == {"dominant emotion": "fear", "valence": 0.5}
    assert not parse(reply("Dominant emotion: fear"), VALENCE).well_formed
    others = {"dominance", "emotion ranking", "dominant emotion", "answer", "suggestions"}
    assert {key for task in TASKS.values() for key in task.readers} == {*SAID, *others}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (reply(FACTS), "dark sky"),
        ("Well. <think> one </think><think>two</think>", "one"),
        ("<think>cut", ""),
        ("", ""),
        ("x" * LONGEST + "<think>late</think>", ""),
    ],
)
def test_the_reasoning_can_be_read_by_itself(text, reason):
    assert reasoning(text) == reason


@pytest.mark.parametrize(
    ("question", "text", "value"),
    [
        (CHOICE, "B:Yes.", "B"),
        (CHOICE, "The answer is C.", "C"),
        (CHOICE, "<think>A or B?</think> D", "D"),
        (CHOICE, "None of them", None),
        (VALENCE, "about 0.62, I think", 0.62),
        (VALENCE, "7 of 10, so 0.7", 0.7),
        (VALENCE, "<answer>0.3</answer>", 0.3),
        (DOMINANT, "It is mostly Joy and fear", "joy"),
        (RANKING, "1. fear 2. shock 3. joy 4. anger", ("fear", "surprise", "joy")),
        (RANKING, "none", None),
    ],
)
def test_lenient_reading_finds_what_was_asked(question, text, value):
    (key,) = question.truth
    assert parse(text, question, lenient=True).values.get(key) == value
    assert not parse(text, question, lenient=True).well_formed
    assert key not in parse(text, question).values


def test_lenient_reading_never_overrules_the_form():
    text = reply("Answer: B", think="A or C")
    assert parse(text, CHOICE, lenient=True) == parse(text, CHOICE) == Answer(True, {"answer": "B"})
