from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from data_tools.questions.eemodb import read_questions
from emosym.affect.taxonomies import EKMAN7, MIKELS8
from emosym.errors import UserError
from emosym.records import Question
from emosym.tasks.answers import parse

SINGLE = {
    "image_name": "1.jpg",
    "category": "Animal",
    "emotion_list": [["Joy", 39], ["neutral", 40], ["surprise", 33]],
    "Valence": [6.0, 0.8, 1.0],
    "Arousal": [4.222222222222222, 1.1, 1.8],
    "Dominance": [9, 0, 0],
    "judge_Q": "Is surprise one of the three?",
    "judge_A": {"A": "No", "B": "Yes"},
    "judge_answer": "B",
    "choose_Q": "How much dominance?",
    "choose_A": {"A": "Strong", "B": "Moderate", "C": "Weak"},
    "choose_answer": "A",
    "open_ended_Q": "Why?",
}
PAIR = {
    "image1_url": "1.jpg",
    "image2_url": "2.jpg",
    "judge_question": "Do both lean towards the positive?",
    "judge_options": {"A": "Yes.", "B": "No."},
    "judge_answer": "B",
    "choose_question": "Which one is more negative?",
    "choose_options": {"A": "The first picture.", "B": "The second picture."},
    "choose_answer": "A",
    "open_ended_question": "",
}
ANSWERED = {
    "id": 0,
    "image1_url": "1.jpg",
    "image2_url": "2.jpg",
    "question": "Is anger one of them?",
    "options": "{'A': 'No.', 'B': 'Yes.'}",
    "correct_answer": "B",
    "question_type": "Yes-or-No",
    "perceptual_dimension": "Arousal perception",
}
ARTEMIS = {
    "img_path": "./test_dominant_images\\00000.jpg",
    "emotion": ["something else", "amusement"],
    "dominant_emotion": "amusement",
}
ARTPHOTO = {"id": 0, "emotion": "sad", "image_path": "1.jpg"}


@pytest.fixture
def images(tmp_path, picture) -> Path:
    for name in ("1.jpg", "2.jpg", "test_dominant_images/00000.jpg"):
        picture(tmp_path / "images" / name)
    return tmp_path / "images"


def read(images: Path, *records: object) -> list[Question]:
    path = images.parent / "bench.json"
    path.write_text(json.dumps(records))
    return read_questions(path, images, "test")


def test_what_one_image_is_asked(images):
    questions = read(images, SINGLE)
    assert {(q.images, q.split, q.labels) for q in questions} == {
        ((images / "1.jpg",), "test", EKMAN7)
    }
    assert {q.id: (q.task, q.truth) for q in questions} == {
        "bench/1/valence": ("valence", {"valence": 0.625}),  # (6 - 1) / 8
        "bench/1/arousal": ("arousal", {"arousal": 0.4028}),
        "bench/1/dominance": ("dominance", {"dominance": 1.0}),
        # By votes, not by place.
        "bench/1/ranking": ("ranking", {"emotion ranking": ("neutral", "joy", "surprise")}),
        "bench/1/judge": ("perception", {"answer": "B"}),
        "bench/1/choose": ("perception", {"answer": "A"}),
        "bench/1/open_ended": ("description", {}),
    }
    for question in questions[:-1]:
        assert parse(question.answer, question).values == question.truth
    assert questions[-1].answer == ""
    assert questions[5].options == SINGLE["choose_A"]
    assert questions[5].text.startswith("How much dominance? A: Strong B: Moderate C: Weak Reason")
    assert questions[6].text.startswith("Why? Reason in")
    assert "anger, disgust, fear, joy, neutral, sadness, surprise" in questions[3].text
    without = {key: value for key, value in SINGLE.items() if key != "open_ended_Q"}
    assert len(read(images, without)) == 6


def test_what_a_pair_is_asked(images):
    questions = read(images, PAIR, {**PAIR, "open_ended_question": "Which, and why?"})
    assert [q.id.partition("/")[2] for q in questions] == [
        "1/judge",
        "1/choose",
        "2/judge",
        "2/choose",
        "2/open_ended",
    ]
    assert {q.images for q in questions} == {(images / "1.jpg", images / "2.jpg")}
    assert questions[1].options == PAIR["choose_options"]
    assert [q.truth for q in questions[:2]] == [{"answer": "B"}, {"answer": "A"}]


def test_records_with_answers(images):
    opened = {**ANSWERED, "question_type": "Open_ended", "correct_answer": "The first, it is dark."}
    del opened["options"]
    single = {**ANSWERED, "image_url": "2.jpg", "perceptual_dimension": "Emotion perception"}
    choice, description, alone = read(images, ANSWERED, opened, single)
    assert (choice.aspect, choice.truth) == ("arousal", {"answer": "B"})
    assert choice.options == {"A": "No.", "B": "Yes."}
    assert description.truth == {"description": "The first, it is dark."}
    assert description.answer == "<think></think><answer>The first, it is dark.</answer>"
    assert (alone.aspect, alone.images) == ("emotion", (images / "2.jpg",))


def test_dominant_emotions_of_art(images):
    (painting,) = read(images, ARTEMIS)
    assert painting.images == (images / "test_dominant_images" / "00000.jpg",)
    (photograph,) = read(images, ARTPHOTO)
    assert painting.truth == {"dominant emotion": "amusement"}
    assert photograph.truth == {"dominant emotion": "sadness"}
    for question in (painting, photograph):
        assert (question.task, question.labels) == ("dominant", MIKELS8)
        assert "something else" not in question.text


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (SINGLE, {"Valence": [9.5, 0, 0]}, "Valence: is no number of its scale; got 9.5; expected"),
        (SINGLE, {"Arousal": [0, 0, 0]}, "Arousal: is no number of its scale; got 0"),
        (SINGLE, {"Dominance": 5.0}, "Dominance: is no [mean, deviation, largest deviation]"),
        (SINGLE, {"Dominance": None}, "Dominance: is no [mean, deviation, largest deviation]"),
        (SINGLE, {"Dominance": [True, 0, 0]}, "Dominance: is no number of its scale; got True"),
        (SINGLE, {"emotion_list": [["joy", 1], ["awe", 1], ["fear", 1]]}, "emotion_list: unknown"),
        (
            SINGLE,
            {"emotion_list": [["joy", 1], ["joy", 2], ["fear", 1]]},
            "emotion_list: is no rank",
        ),
        (SINGLE, {"emotion_list": [["joy", 1], ["fear", 1]]}, "emotion_list: is no ranking"),
        (SINGLE, {"emotion_list": [["joy", -1]] * 3}, "emotion_list: votes are no number from 0"),
        (SINGLE, {"emotion_list": ["joy"]}, "emotion_list: is no list of [emotion, votes]"),
        (SINGLE, {"judge_A": {"A": "No", "B": "no."}}, "judge_A: options A and B are the same"),
        (SINGLE, {"judge_A": {"A": "No", "a": "Yes"}}, "judge_A: the letter A comes twice"),
        (SINGLE, {"judge_A": {"A": "No", "2": "Yes"}}, "judge_A: '2' is no letter"),
        (SINGLE, {"judge_A": {"A": "No"}}, "judge_A: has fewer than two options"),
        (SINGLE, {"judge_A": ["No", "Yes"]}, "judge_A: is no object of letters and options"),
        (SINGLE, {"judge_answer": "C"}, "judge_answer: is no option; got 'C'; expected A, B"),
        (SINGLE, {"choose_answer": None}, "choose_answer: missing"),
        (SINGLE, {"choose_Q": None}, "choose_Q: missing"),
        (SINGLE, {"open_ended_Q": 5}, "open_ended_Q: is not a text; got 5"),
        (SINGLE, {"image_name": "9.jpg"}, "image_name: file '9.jpg' does not exist"),
        (PAIR, {"image2_url": None}, "image2_url: missing"),
        (PAIR, {"image2_url": "9.jpg"}, "image2_url: file '9.jpg' does not exist"),
        (PAIR, {"judge_answer": "D"}, "judge_answer: is no option"),
        (ANSWERED, {"options": "{'A': 'No.', 'A': 'Yes.'}"}, "options: the letter A comes twice"),
        (ANSWERED, {"options": "{'A': 'No.', 'B': ''}"}, "options: is not a text; got ''"),
        (ANSWERED, {"options": "['No.', 'Yes.']"}, "options: is no dictionary"),
        (ANSWERED, {"options": "{'A': open('x')}"}, "options: is no dictionary"),
        (ANSWERED, {"options": "{"}, "options: is no dictionary; got '{'; expected {'A': 'Yes.'"),
        (
            ARTEMIS,
            {"dominant_emotion": "something else"},
            "dominant_emotion: unknown emotion 'some",
        ),
        (ARTEMIS, {"img_path": "..\\..\\x.jpg"}, "img_path: path '../../x.jpg' leaves"),
        (ARTPHOTO, {"emotion": "joy"}, "emotion: unknown emotion 'joy'"),
    ],
)
def test_a_wrong_record_is_reported(images, base, change, message):
    with pytest.raises(UserError) as error:
        read(images, base, {**base, **change})
    assert str(error.value).startswith(f"{images.parent / 'bench.json'}: record 2: {message}")


# --- the published records ----------------------------------------------------------------------


def published(shared: Path, root: Path, name: str) -> tuple[Path, list[dict]]:
    """Copy published records beside stand-ins for their images, which are not published."""
    source = shared / name
    data = gzip.decompress(source.read_bytes()) if source.suffix == ".gz" else source.read_bytes()
    records = json.loads(data)
    for record in records:
        for key in ("image_name", "image1_url", "image2_url", "img_path", "image_path"):
            if key in record:
                image = root / "images" / record[key].replace("\\", "/")
                image.parent.mkdir(parents=True, exist_ok=True)
                image.write_bytes(b"a picture")
    path = root / "file.json"
    path.write_text(json.dumps(records))
    return path, records


def test_published_single_images(shared, tmp_path):
    path, records = published(
        shared, tmp_path, "eemo_logic/Ebench_1_data(jac_en_check).head60.json"
    )
    questions = read_questions(path, tmp_path / "images", "test")
    assert Counter(q.task for q in questions) == {
        "valence": 60,
        "arousal": 60,
        "dominance": 60,
        "ranking": 60,
        "perception": 120,
        "description": 24,
    }
    first = {q.id.rpartition("/")[2]: q.truth for q in questions[:7]}
    assert first["valence"] == {"valence": 0.625}
    assert first["arousal"] == {"arousal": 0.4028}
    assert first["dominance"] == {"dominance": 0.6806}
    assert first["ranking"] == {"emotion ranking": ("joy", "neutral", "surprise")}
    for question in questions:
        record = records[int(question.id.split("/")[1]) - 1]
        if question.task in ("valence", "arousal", "dominance"):
            mean = record[question.task.capitalize()][0]
            assert question.truth[question.task] == pytest.approx((mean - 1) / 8, abs=5e-5)
        if question.task == "ranking":
            assert list(question.truth["emotion ranking"]) == [n for n, _ in record["emotion_list"]]


def test_published_pairs_and_open_questions(shared, tmp_path):
    for name, described in (("imgpir(en)", 9), ("open_ended(en_pair)", 60)):
        path, _ = published(shared, tmp_path, f"eemo_logic/Ebench_{name}.head60.json")
        questions = read_questions(path, tmp_path / "images", "test")
        assert Counter(q.task for q in questions) == {"perception": 120, "description": described}
        assert all(len(q.images) == 2 for q in questions)
    path, _ = published(shared, tmp_path, "eemo_logic/Ebench_open_ended(en).head60.json")
    questions = read_questions(path, tmp_path / "images", "test")
    assert sum(q.task == "description" for q in questions) == 60


def test_published_answers_and_their_two_flaws(shared, tmp_path):
    path, records = published(shared, tmp_path, "eemo_bench/qwen2-7b-pair.json.gz")
    assert len(records) == 2312
    with pytest.raises(UserError, match="record 816: options: is not a text; got ''"):
        read_questions(path, tmp_path / "images", "test")
    del records[815]  # one option is empty, and right
    path.write_text(json.dumps(records))
    with pytest.raises(UserError, match="record 1838: options: options A and D are the same"):
        read_questions(path, tmp_path / "images", "test")
    del records[1837]  # an option comes twice, once right and once wrong
    path.write_text(json.dumps(records))
    questions = read_questions(path, tmp_path / "images", "test")
    assert Counter(q.task for q in questions) == {"perception": 2010, "description": 300}
    assert Counter(q.aspect for q in questions if q.task == "perception") == {
        "emotion": 917,
        "valence": 348,
        "arousal": 294,
        "dominance": 291,
        "": 160,
    }
    for question, record in zip(questions, records, strict=True):
        answer = parse(question.answer, question)
        assert answer.well_formed
        assert answer.values == question.truth
        if question.options:
            assert question.truth == {"answer": record["correct_answer"]}


def test_published_dominant_emotions(shared, tmp_path):
    path, _ = published(shared, tmp_path, "eemo_logic/test_Artphoto.head60.json")
    questions = read_questions(path, tmp_path / "images", "test")
    count = Counter(q.truth["dominant emotion"] for q in questions)
    assert (count["sadness"], count["contentment"], count.total()) == (13, 3, 60)
    assert all(  # ArtPhoto's file names begin with its labels
        q.truth["dominant emotion"].startswith(q.images[0].name.split("_")[0]) for q in questions
    )
    path, _ = published(shared, tmp_path, "eemo_logic/test_ArtEmis.head60.json")
    questions = read_questions(path, tmp_path / "images", "test")
    assert {q.truth["dominant emotion"] for q in questions} == {"amusement"}
    assert len({q.images for q in questions}) == 60
