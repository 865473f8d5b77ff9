from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from data_tools.affectworld.text import in_light, light_of
from data_tools.affectworld.world import SOURCE, draw_world
from data_tools.critique import DRAWINGS, criticise_questions, rewrite_questions
from emosym.records import Question, Sample

CAT = "a small cat at sea"


def cat(id: str, valence: float, arousal: float, light: str, **given: object) -> Sample:
    return Sample(
        **{
            "id": id,
            "image": Path(f"/{id}.jpg"),
            "split": "train",
            "valence": valence,
            "arousal": arousal,
            "prompt": CAT,
            "emotional_prompt": f"{CAT}, in {light} light",
            "attributes": {"object": ["cat"]},
            **given,
        }
    )


CATS = [
    cat("a", 1.0, 0.5, "bright vivid blue"),
    cat("b", 0.26, 0.46, "even grey"),
    cat("c", -2.0, 0.5, "very dark deeply saturated red"),
]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Return a drawn world as samples; the pictures themselves are not asked for."""
    return [
        Sample(
            id=item.id,
            image=Path(f"/{item.id}.jpg"),
            split=item.split,
            valence=item.affect.valence,
            arousal=item.affect.arousal,
            prompt=item.annotation()["neutral_prompt"],
            emotional_prompt=item.annotation()["emotional_prompt"],
            attributes={"object": item.annotation()["object"]},
            source=SOURCE,
        )
        for item in draw_world(240, seed=4, size=16)
    ]


@pytest.fixture(scope="module")
def criticised(samples) -> list[Question]:
    return list(criticise_questions(samples, seed=1))


@pytest.fixture(scope="module")
def rewritten(samples) -> list[Question]:
    return list(rewrite_questions(samples, seed=1))


def test_a_critique_by_hand():
    wanted_a, wanted_b, wanted_c = criticise_questions(CATS, seed=0)
    assert wanted_a.id == "a/criticise/b+c"
    assert wanted_a.images == (Path("/b.jpg"), Path("/c.jpg")), "the nearest first"
    assert "Wanted: valence 1.0, arousal 0.5" in wanted_a.text
    assert wanted_a.truth == {
        **{"gap valence": 0.7, "gap arousal": 0.0},  # 1.0 - 0.3 and 0.5 - 0.5, as they are said
        "suggestions": ("bright", "vivid"),
    }
    assert wanted_a.answer == (
        "<think>The light is even and grey, which evokes valence 0.3, arousal 0.5; it takes bright"
        " and vivid light.</think>"
        "<answer>Gap valence: +0.7; Gap arousal: +0.0; Suggestions: bright, vivid</answer>"
    )
    assert wanted_b.images == (Path("/a.jpg"), Path("/c.jpg"))
    assert wanted_b.truth["gap valence"] == -0.7
    assert wanted_c.truth["suggestions"] == ("very dark", "deeply saturated")


def test_rewrites_by_hand():
    for question, wanted in zip(rewrite_questions(CATS, seed=0), CATS, strict=True):
        light, colour = light_of(wanted.emotional_prompt)
        assert question.images == ()
        assert question.truth == {"prompt": f"{CAT}, in {light} {colour} light"}
        assert question.answer == f"<think></think><answer>{question.truth['prompt']}</answer>"
        assert f"It still shows {CAT}. It says {light}, {colour} in place" in question.text


@pytest.mark.parametrize(
    "others",
    [
        [],
        [replace(CATS[1], split="test")],
        [replace(CATS[1], attributes={"object": ["dog"]})],
        [replace(CATS[1], attributes={})],
        [replace(CATS[1], valence=None)],
        [replace(CATS[1], emotional_prompt=f"{CAT}, in a storm")],
    ],
)
def test_two_pictures_of_a_subject_are_too_few(others):
    assert list(criticise_questions([CATS[0], CATS[2], *others], seed=0)) == []
    assert len(list(criticise_questions(CATS, seed=0))) == 3


def test_the_suggested_light_is_that_of_a_picture_which_evokes_what_was_wanted(samples, criticised):
    by_id = {sample.id: sample for sample in samples}
    nearest = 0
    for question in criticised:
        wanted = by_id[question.id.split("/")[0]]
        best, worst = (by_id[path.stem] for path in question.images)
        assert len({wanted.id, best.id, worst.id}) == 3
        assert {wanted.split, best.split, worst.split} == {question.split}
        assert wanted.attributes == best.attributes == worst.attributes
        assert light_of(wanted.emotional_prompt) == question.truth["suggestions"]
        errors = [
            abs(one.valence - wanted.valence) + abs(one.arousal - wanted.arousal)
            for one in (wanted, best, worst)
        ]
        assert errors[0] == 0 < errors[1] < errors[2]
        for axis in ("valence", "arousal"):
            gap = getattr(wanted, axis) - getattr(best, axis)
            assert question.truth[f"gap {axis}"] == pytest.approx(gap, abs=0.1 + 1e-9)
        nearest += sum(
            abs(one.valence - wanted.valence) + abs(one.arousal - wanted.arousal) < errors[1]
            for one in samples
            if one.split == wanted.split and one.attributes == wanted.attributes
        )
    assert len(criticised) > 200
    assert nearest > 2 * len(criticised), f"the best of {DRAWINGS}, not of all"


def test_half_of_the_prompts_said_another_light(samples, rewritten):
    neutral = {sample.id: sample.prompt for sample in samples}
    assert len(rewritten) == len(samples)
    lit = 0
    for question in rewritten:
        content = neutral[question.id.split("/")[0]]
        before = question.text.split("It was: ")[1].split(". Reason")[0]
        assert question.truth["prompt"].startswith(f"{content}, in ")
        if before != content:
            lit += 1
            assert in_light(content, light_of(before)) == before
    assert 0.4 < lit / len(rewritten) < 0.6


def test_questions_follow_from_seed_and_ids(samples, criticised, rewritten):
    for build, found in ((criticise_questions, criticised), (rewrite_questions, rewritten)):
        assert list(build(samples[::-1], seed=1)) == found
        assert list(build(samples, seed=2)) != found
        assert len({question.id for question in found}) == len(found)
