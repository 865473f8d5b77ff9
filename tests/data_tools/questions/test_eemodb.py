from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from data_tools.questions.eemodb import read_questions
from emosym.affect.taxonomies import EKMAN7
from emosym.errors import UserError
from emosym.records import Question
from emosym.tasks.answers import parse
from emosym.tasks.registry import score


@pytest.fixture
def images(tmp_path, picture) -> Path:
    for name in ("1.jpg", "2.jpg", "sub/3.jpg"):
        picture(tmp_path / "images" / name)
    return tmp_path / "images"


def read(images: Path, *records: object) -> list[Question]:
    path = images.parent / "file.json"
    path.write_text(json.dumps(records))
    return read_questions(path, images, "train")


def talk(*turns: str, image: object = "1.jpg") -> dict[str, object]:
    speakers = ("human", "gpt") * len(turns)
    reply = [
        {"from": speaker, "value": text} for speaker, text in zip(speakers, turns, strict=False)
    ]
    return {"id": "x", "image": image, "conversations": reply}


def assess(answer: object, question: str = "<image>\nHow is it?", **fields) -> dict[str, object]:
    base = {"problem": {"question": question}, "solution": {"answer": answer}}
    return {**base, "video_path": "1.jpg", **fields}


# --- EEmoDB-QA ----------------------------------------------------------------------------------


def test_a_choice_in_a_conversation(images):
    text = "<image>\nIs fear among the three main emotions? Choose between A: No. B: Yes.\nThink."
    (question,) = read(images, talk(text, "B"))
    assert question == Question(
        id="file/1/1",
        task="perception",
        images=(images / "1.jpg",),
        split="train",
        text="Is fear among the three main emotions? Choose between A: No. B: Yes.\nThink.",
        truth={"answer": "B"},
        answer="<think></think><answer>Answer: B</answer>",
        labels=EKMAN7,
        scale=question.scale,
        options={"A": "No.", "B": "Yes."},
    )
    assert str(question.scale) == "[0, 1]"


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("B: Much higher.", "B"),
        ("C.", "C"),
        ("Much higher", "B"),
        ("a strong feeling.", "A"),
        ("<think>It is.</think><answer>Answer: C</answer>", "C"),
        ("<think>It is.</think> A", "A"),
    ],
)
def test_the_right_option_is_said_in_many_ways(images, reply, letter):
    text = "How is it? A: A strong feeling. B:Much higher. C: About the same."
    (question,) = read(images, talk(text, reply))
    assert question.truth == {"answer": letter}
    assert question.options == {
        "A": "A strong feeling.",
        "B": "Much higher.",
        "C": "About the same.",
    }
    assert question.answer.startswith("<think>It is." if "<think>" in reply else "<think></think>")


def test_turns_about_a_pair(images):
    turns = (
        "<image>\n<image>\nWhat do they share?",
        "Both are dark: a storm, and a wood.",
        "Rank the emotions of both.",
        "<think>Dark.</think><answer>Emotion ranking: Fear, Neutrality, Shock</answer>",
        "How pleasant?",
        "Valence: 0.25",
    )
    first, second, third = read(images, talk(*turns, image=["1.jpg", "sub\\3.jpg"]))
    assert {q.images for q in (first, second, third)} == {(images / "1.jpg", images / "sub/3.jpg")}
    assert (first.task, first.text) == ("description", "What do they share?")
    assert first.truth == {"description": turns[1]}
    assert first.answer == f"<think></think><answer>{turns[1]}</answer>"
    assert (second.task, second.truth["emotion ranking"]) == (
        "ranking",
        ("fear", "neutral", "surprise"),
    )
    assert second.answer == (
        "<think>Dark.</think><answer>Emotion ranking: fear, neutral, surprise</answer>"
    )
    assert (third.task, third.truth) == ("valence", {"valence": 0.25})
    assert [q.id for q in (first, second, third)] == ["file/1/1", "file/1/2", "file/1/3"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (talk("Hm?", "Yes.", image=None), "image: missing"),
        (talk("Hm?", "Yes.", image=[]), "image: 0 images; expected one image or a pair"),
        (talk("Hm?", "Yes.", image=["1.jpg"] * 3), "image: 3 images; expected one image or a pair"),
        (talk("Hm?", "Yes.", image=["1.jpg", None]), "image: missing"),
        (talk("Hm?", "Yes.", image=["1.jpg", "9.jpg"]), "image: file '9.jpg' does not exist"),
        (talk("Hm?", "Yes.", image=["1.jpg", ""]), "image: is not a text; got ''"),
        (talk("Hm?", "Yes.", image="../file.json"), "image: path '../file.json' leaves"),
        (talk("Hm?", "Yes.", image="..\\file.json"), "image: path '../file.json' leaves"),
        (talk("Hm?", "Yes.", image="/etc/passwd"), "image: path '/etc/passwd' is absolute"),
        (talk("<image><image>Hm?", "Yes."), "image: 1 named, but 2 shown in the conversation"),
        (talk("<image>Hm?", "Yes.", image=["1.jpg", "2.jpg"]), "image: 2 named, but 1 shown"),
        (talk("Hm?", "Yes.", image="\ud800"), "image: a text with half a character"),
        (talk("Hm \udfff", "Yes."), "conversations.0.value: a text with half a character"),
        (talk("Hm?", "Yes.") | {"note": float("nan")}, "note: a number that is NaN"),
        (talk("Hm?"), "conversations: is no list of human's and gpt's turns"),
        (talk(), "conversations: is no list of human's and gpt's turns"),
        (talk("<image>", "Yes."), "conversations.0: is not a text; got ''"),
        (talk("Hm?", " "), "conversations.1.value: is not a text; got ' '"),
        (
            {"image": "1.jpg", "conversations": [{"from": "gpt", "value": "a"}, {}]},
            "conversations.0: is no turn of human; got {'from': 'gpt'",
        ),
        (talk("A: Yes B: No", "C"), "conversations.1: is no option; got 'C'; expected A, B"),
        (talk("A: Yes B: No", "<answer> </answer>"), "conversations.1: is not a text; got ''"),
        (talk("A: Yes B: No", "<answer>Answer: </answer>"), "conversations.1: is not a text"),
        (talk("A: Yes B: No", "Maybe"), "conversations.1: is no option; got 'Maybe'"),
        (talk("A: Yes B: No A: So", "A"), "conversations: the letter A comes twice"),
        (talk("A: Yes B: yes.", "A"), "conversations: options A and B are the same; got 'yes.'"),
        (talk("Hm?", "Valence: 1.2"), "conversations.1: is no number of its scale; got '1.2'"),
        (talk("Hm?", "Emotion ranking: fear, awe, joy"), "conversations.1: unknown emotion 'awe'"),
    ],
)
def test_a_wrong_conversation_is_reported(images, record, message):
    good = talk("Hm?", "Yes.")
    with pytest.raises(UserError) as error:
        read(images, good, record)
    assert str(error.value).startswith(f"{images.parent / 'file.json'}: record 2: {message}")
    assert str(error.value).endswith("correct or remove the record")


# --- EEmoDB-Assess ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "task", "truth", "labels"),
    [
        ("Valence: 0.6250", "valence", {"valence": 0.625}, EKMAN7),
        ("Arousal: 1", "arousal", {"arousal": 1.0}, EKMAN7),
        ("Dominance:0.12345", "dominance", {"dominance": 0.1235}, EKMAN7),
        (
            "Emotion ranking: joy, neutral, surprise",
            "ranking",
            {"emotion ranking": ("joy", "neutral", "surprise")},
            EKMAN7,
        ),
        (
            "Dominant emotion: joy(fear, joy, Anger)",
            "dominant",
            {"dominant emotion": "joy"},
            ("fear", "joy", "anger"),
        ),
        (
            "Dominant emotion: doubt/confusion (peace, doubt/confusion)",
            "dominant",
            {"dominant emotion": "doubt/confusion"},
            ("peace", "doubt/confusion"),
        ),
        (
            "Dominant emotion: Sad(content, sad)",
            "dominant",
            {"dominant emotion": "sad"},
            ("content", "sad"),
        ),
        ("Dominant emotion: fear", "dominant", {"dominant emotion": "fear"}, EKMAN7),
    ],
)
def test_answers_to_be_rewarded(images, answer, task, truth, labels):
    (question,) = read(images, assess(answer))
    assert (question.task, question.truth, question.labels) == (task, truth, labels)
    assert (question.text, question.id) == ("How is it?", f"file/1/{task}")
    assert question.images == (images / "1.jpg",)
    # The parser and the rewards read what the file says.
    answer = parse(question.answer, question)
    assert answer.well_formed
    assert answer.values == truth
    reward = {"valence": "affect_gaussian", "arousal": "affect_gaussian", "ranking": "ranking"}
    reward |= {"dominance": "affect_gaussian", "dominant": "similarity"}
    assert score(answer, question, {reward[task]: 1.0})["total"] == pytest.approx(1)


@pytest.mark.parametrize(
    "record",
    [
        assess("Valence: 0.5"),
        {"problem": "How is it?", "solution": "Valence: 0.5", "image": "1.jpg"},
        {"question": "How is it?", "answer": "Valence: 0.5", "image": "1.jpg"},
        {"problem.question": "How is it?", "solution.answer": "Valence: 0.5", "image": ["1.jpg"]},
    ],
)
def test_levels_may_be_flat(images, record):
    (question,) = read(images, record)
    assert (question.text, question.truth) == ("How is it?", {"valence": 0.5})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (assess("Valence: 1.01"), "solution.answer: is no number of its scale; got '1.01'"),
        (assess("Valence: nan"), "solution.answer: is no number of its scale"),
        (assess("Valence: high"), "solution.answer: is no number of its scale"),
        (assess("Emotion ranking: joy, fear"), "solution.answer: is no ranking"),
        (assess("Emotion ranking: joy, fear, joy"), "solution.answer: is no ranking"),
        (
            assess("Emotion ranking: joy, fear, awe"),
            "solution.answer: unknown emotion 'awe'; expected one of anger, disgust, fear",
        ),
        (
            assess("Dominant emotion: joy(fear, anger)"),
            "solution.answer: unknown emotion 'joy'; expected one of fear, anger",
        ),
        (assess("Dominant emotion: joy(joy, blue)"), "solution.answer: unknown emotion 'blue'"),
        (
            assess("Dominant emotion: joy(joy, joy)"),
            "solution.answer: the option 'joy' comes twice",
        ),
        (
            assess("Joy."),
            "solution.answer: has no key that is rewarded; got 'Joy.'; expected Val",
        ),
        (assess(None), "solution.answer: missing"),
        (assess(0.5), "solution.answer: is not a text; got 0.5"),
        (assess("Valence: 0.5", ""), "problem.question: is not a text"),
        (assess("Valence: 0.5", video_path=None), "video_path: missing"),
        (assess("Valence: 0.5", video_path="9.jpg"), "video_path: file '9.jpg' does not exist"),
    ],
)
def test_a_wrong_assessment_is_reported(images, record, message):
    with pytest.raises(UserError) as error:
        read(images, assess("Valence: 0.5"), assess("Valence: 0.5"), record)
    assert str(error.value).startswith(f"{images.parent / 'file.json'}: record 3: {message}")


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot read {path}; got not JSON: Expecting value at column 1"),
        ("[", "cannot read {path}"),
        ("[" * 100_000, "cannot read {path}; got not JSON that can be read: nested too deeply"),
        ("[[" * 20 + "]]" * 20, "{path}: record 1: -: nested too deeply"),
        ('{"0": NaN}', "cannot read {path}; got 0: a number that is NaN"),
        ("[{}, NaN]", "{path}: record 2: -: a number that is NaN"),
        ("\ufffe", "cannot read {path}"),
        ("[]", "{path} holds no questions; got an empty list"),
        ("{}", "{path} holds no questions; got dict; expected a JSON list"),
        ("[1]", "{path}: record 1: -: is no object; got 1"),
        ("[{}]", "{path} has an unknown layout"),
        (
            '[{"text": 1}]',
            "{path} has an unknown layout; got keys ['text']; expected EEmoDB-QA",
        ),
        (
            '[{"question": 1, "question": 2}]',
            "{path}: record 1: question: this key comes twice",
        ),
        (
            '[{"judge_Q": "?", "judge_A": {"A": "Yes", "A": "No"}}]',
            "{path}: record 1: judge_A.A: this key comes twice",
        ),
        (
            '[{"conversations": [{"from": "human", "value": "a", "value": "b"}]}]',
            "{path}: record 1: conversations.0.value: this key comes twice",
        ),
    ],
)
def test_files_that_hold_no_questions(images, content, message):
    path = images.parent / "q.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        read_questions(path, images, "train")
    assert str(error.value).startswith(message.format(path=path))


def test_missing_file_and_folder(images):
    with pytest.raises(UserError, match="cannot read"):
        read_questions(images / "none.json", images, "train")
    with pytest.raises(UserError, match="no folder"):
        read_questions(images / "none.json", images / "none", "train")


def test_an_image_may_not_be_reached_through_a_link(images, tmp_path_factory, picture):
    outside = picture(tmp_path_factory.mktemp("outside") / "secret.jpg")
    os.symlink(outside, images / "link.jpg")
    with pytest.raises(UserError, match="leaves the dataset's folder through a link"):
        read(images, talk("Hm?", "Yes.", image="link.jpg"))
