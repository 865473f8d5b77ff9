from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data_tools.affectworld.world import draw_world
from data_tools.sources.oasis import read_oasis
from emosym.affect.taxonomies import MIKELS8
from emosym.records import Question, Sample
from emosym.tasks.perception import find_option, level, perception_questions
from emosym.tasks.votes import main_emotion, top_emotions

AXES = ("valence", "arousal", "dominance")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Return a drawn world as samples; the pictures themselves are not asked for."""
    return [
        Sample(
            id=item.id,
            image=Path(f"/{item.id}.jpg"),
            split=item.split,
            emotion=item.emotion,
            valence=item.affect.valence,
            arousal=item.affect.arousal,
            dominance=item.dominance,
            votes=item.annotation()["votes"],
        )
        for item in draw_world(480, seed=2, size=16)
    ]


@pytest.fixture(scope="module")
def questions(samples) -> list[Question]:
    return list(perception_questions(samples, seed=5))


def kind(question: Question) -> str:
    return question.id.rpartition("/")[2]


def right(question: Question) -> str:
    return question.options[question.truth["answer"]]


def expected(question: Question, shown: list[Sample]) -> str:
    """Answer a question from its words alone, by other means than the builder's."""
    first, second = shown[0], shown[-1]
    words = question.text.split()
    if question.text.startswith("Is") and "three main" in question.text:
        weights = sorted(first.votes.values(), reverse=True)
        return "Yes" if first.votes[words[1]] >= weights[2] else "No"
    if question.text.startswith("How high"):
        value = (getattr(first, words[4]) + 3) / 6
        return "low" if value <= 0.40005 else "high" if value >= 0.59995 else "moderate"
    if question.text.startswith("Do both images evoke mainly the same emotion?"):
        return "Yes" if first.emotion == second.emotion else "No"
    if "on the same level" in question.text:
        bins = [
            int(x > -0.6 + 3e-4) + int(x >= 0.6 - 3e-4)
            for x in (getattr(s, words[2]) for s in shown)
        ]
        return "Yes" if bins[0] == bins[1] else "No"
    if question.text.startswith("Which image evokes the higher"):
        axis = words[5].rstrip("?")
        gap = (getattr(first, axis) - getattr(second, axis)) / 6
        if -0.09995 < gap < 0.09995:
            return "about the same"
        return "the first image" if gap > 0 else "the second image"
    assert question.text.startswith("Which emotion is common to both images?")
    tops = [sorted(s.votes, key=s.votes.get)[-3:] for s in shown]
    (shared,) = [name for name in tops[0] if name in tops[1]]
    assert (
        len(
            [
                option
                for option in question.options.values()
                if option in tops[0] and option in tops[1]
            ]
        )
        == 1
    )
    return shared


def test_every_answer_is_true(samples, questions):
    by_image = {sample.image: sample for sample in samples}
    for question in questions:
        shown = [by_image[image] for image in question.images]
        assert right(question) == expected(question, shown), question
        assert {sample.split for sample in shown} == {question.split}
        assert len(set(question.images)) == len(question.images)
        assert list(question.options) == list("ABCD"[: len(question.options)])
        assert len(set(question.options.values())) == len(question.options)
        assert all(
            f"{letter}: {option}" in question.text for letter, option in question.options.items()
        )


def test_every_kind_is_asked_about_singles_and_pairs(questions):
    count = Counter(
        (kind(question), question.aspect, len(question.images)) for question in questions
    )
    assert set(count) == {
        ("among three", "emotion", 1),
        *((f"level of {axis}", axis, 1) for axis in AXES),
        ("same emotion", "emotion", 2),
        *((f"same {axis}", axis, 2) for axis in AXES),
        *((f"higher {axis}", axis, 2) for axis in AXES),
        ("common", "emotion", 2),
    }
    assert all(count[key] == 480 for key in count if key[2] == 1)
    assert all(count[key] >= 440 for key in count if key[2] == 2)
    assert len({question.id for question in questions}) == len(questions)


def test_answers_are_balanced_in_every_split(questions):
    for split in ("train", "val", "test"):
        for name in ("among three", "same emotion", *(f"same {axis}" for axis in AXES)):
            count = Counter(right(q) for q in questions if (kind(q), q.split) == (name, split))
            assert abs(count["Yes"] - count["No"]) <= 1
        for axis in AXES:
            count = Counter(
                right(q) for q in questions if (kind(q), q.split) == (f"higher {axis}", split)
            )
            assert len(count) == 3
            assert max(count.values()) - min(count.values()) <= 1


def test_letters_tell_nothing(questions):
    for options in (2, 3, 4):
        letters = Counter(q.truth["answer"] for q in questions if len(q.options) == options)
        total = letters.total()
        share = 1 / options
        spread = (share * (1 - share) / total) ** 0.5
        assert len(letters) == options
        assert all(abs(count / total - share) < 4 * spread for count in letters.values())
    # Nor does the letter tell yes from no.
    yes = Counter(q.truth["answer"] for q in questions if right(q) == "Yes")
    assert abs(yes["A"] / yes.total() - 0.5) < 4 * (0.25 / yes.total()) ** 0.5


def test_questions_follow_from_seed_and_ids_not_from_order(samples, questions):
    mixed = samples[:]
    random.Random(0).shuffle(mixed)
    assert list(perception_questions(mixed, seed=5)) == questions
    other = {q.id: q.options for q in perception_questions(samples, seed=6)}
    for name in ("level of valence", "among three"):  # asked of all, with any seed
        same = [q.options == other[q.id] for q in questions if kind(q) == name]
        assert 0 < sum(same) < len(same)
    assert {q.id for q in questions} != set(other)  # other pairs
    train = [sample for sample in samples if sample.split == "train"]
    assert list(perception_questions(train, seed=5)) == [q for q in questions if q.split == "train"]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (-3.0, "low"),
        (-0.6, "low"),  # 0.4 of [0, 1]
        (-0.59, "moderate"),
        (0.0, "moderate"),
        (0.59, "moderate"),
        (0.6, "high"),
        (3.0, "high"),
    ],
)
def test_levels_at_their_bounds(value, word):
    assert level(value) == word


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [(0.0, 0.59, "about the same"), (0.0, 0.6, "b"), (0.6, 0.0, "a"), (-3.0, 3.0, "b")],
)
def test_a_tenth_of_the_scale_is_a_difference(first, second, answer):
    pair = [
        Sample(id=name, image=Path(f"/{name}"), split="test", arousal=arousal)
        for name, arousal in (("a", first), ("b", second))
    ]
    found = [q for q in perception_questions(pair, seed=0) if kind(q) == "higher arousal"]
    assert found
    for question in found:
        option = right(question)
        if option != "about the same":
            option = question.images[option == "the second image"].name
        assert option == answer


def test_no_pair_crosses_splits_and_one_image_makes_no_pair(samples):
    for split in ("train", "test"):
        (alone,) = [replace(samples[0], split=split)]
        other = replace(samples[1], split="val")
        built = list(perception_questions([alone, other], seed=0))
        assert len(built) == 8
        assert all(len(question.images) == 1 for question in built)


def test_samples_of_one_emotion_are_not_asked_for_what_is_never_otherwise():
    same = [Sample(id=str(n), image=Path(f"/{n}"), split="train", emotion="awe") for n in range(20)]
    (question,) = perception_questions(same, seed=0)
    assert right(question) == "Yes"


def test_oasis_carries_perception(shared):
    samples = list(read_oasis(shared / "oasis"))
    built = list(perception_questions(samples, seed=0))
    by_image = {sample.image: sample for sample in samples}
    kinds = Counter(map(kind, built))
    assert kinds["among three"] == 639
    assert "level of dominance" not in kinds
    for name in ("same emotion", "common", "higher valence", "higher arousal"):
        assert kinds[name] > 500
    for question in built:
        shown = [by_image[image] for image in question.images]
        if kind(question) == "same emotion":
            assert (right(question) == "Yes") == (len(set(map(main_emotion, shown))) == 1)
        if kind(question) == "common":
            assert all(right(question) in top_emotions(sample) for sample in shown)
    assert {right(q) for q in built if kind(q) == "common"} <= set(MIKELS8)


MOODS = {"A": "Fear.", "B": "Joy.", "C": "Neutral."}
FIGURES = {"A": "Figure 1 and Figure 2", "B": "Figure 1", "C": "Figure 2"}
PICTURES = {"A": "The first picture.", "B": "The second picture."}
YES = {"A": "No.", "B": "Yes."}


@pytest.mark.parametrize(
    ("text", "options", "letter"),
    [
        # a letter
        ("B", MOODS, "B"),
        ("B:Joy.", MOODS, "B"),
        ("(C)", MOODS, "C"),
        ("**A: Fear.**", MOODS, "A"),
        ("C\n\nNothing moves.", MOODS, "C"),
        ("D: Anger", MOODS, None),
        ("b: joy is far from it", {"A": "x", "B": "y"}, None),
        # the last one counts: a model weighs the options, then concludes
        ("**A: Fear.** Not here.\n**B: Joy.** Yes.", MOODS, "B"),
        # what is announced counts before what is listed
        ("The answer is C: Neutral.\nThe others are wrong:\nA: no\nB: no", MOODS, "C"),
        ("- Option A is wrong\n- Option B is wrong\nso **Option C** is right.", MOODS, "C"),
        ("**Answer**: B\nA: Fear is too strong.", MOODS, "B"),
        # words
        ("It is joy that both of them evoke.", MOODS, "B"),
        ("Figure 2's colours do.", FIGURES, "C"),
        ("Figure 2 is calmer than Figure 1.", FIGURES, "C"),
        ("Figure 1 and Figure 2", FIGURES, "A"),
        ("Figure 1, and less so Figure 2", FIGURES, "B"),
        ("The second image is brighter than the first picture.", PICTURES, "B"),
        ("Joyful", MOODS, None),
        ("A tree stands alone.", MOODS, None),
        ("I won't guess", MOODS, None),
        ("", MOODS, None),
        ("A", {}, None),
        # the question said again
        ("Choose between A:Fear. B:Joy. C:Neutral.", MOODS, None),
        ("Choose between A: Fear. B: Joy. C: Neutral.\nJoy.", MOODS, "B"),
        ("Is it so? A:No. B:Yes. Is it so? A:No. B:Yes.", YES, None),
    ],
)
def test_the_option_that_free_text_chooses(text, options, letter):
    assert find_option(text, options) == letter


def test_an_option_without_words_is_never_named():
    assert find_option("It is calm.", {"A": "", "B": "..."}) is None
