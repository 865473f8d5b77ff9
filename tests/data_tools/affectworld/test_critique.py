from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_tools.affectworld.critique import MISS, criticise_questions, rewrite_questions
from data_tools.affectworld.text import in_light, light_of
from data_tools.affectworld.world import SOURCE, draw_world
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


SEED = 0


def far(sample: Sample, point: tuple[float, float]) -> float:
    return abs(sample.valence - point[0]) + abs(sample.arousal - point[1])


def points(question: Question) -> list[tuple[float, float]]:
    """Return what was wanted, what was reached, and where to aim."""
    numbers = re.findall(r"valence (\S+), arousal ([-.0-9]+\d)", question.text)
    assert len(numbers) == 3
    return [(float(valence), float(arousal)) for valence, arousal in numbers]


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
    """With this seed the first and the third want what their own picture evokes."""
    own_a, plane, own_c = criticise_questions(CATS, seed=SEED)
    assert own_a.id == "a/criticise/b+c"
    assert own_a.images == (Path("/b.jpg"), Path("/c.jpg")), "the nearest first"
    assert own_a.text.startswith(
        "Wanted: a small cat at sea, valence 1.0, arousal 0.5, from -3 to 3. Drawn in the mean:"
        " valence -0.9, arousal 0.5. The first"  # (0.26 - 2.0) / 2 is -0.87
    )
    assert "aim as far beyond: valence 2.9, arousal 0.5. Which" in own_a.text
    # Of 2.9, 0.5: brightness 0.65 + 0.14, saturation 0.60 + 0.13.
    assert own_a.truth == {"suggestions": ("very bright", "vivid")}
    assert own_a.answer == (
        "<think>The light is even and grey; the next one should be very bright and vivid.</think>"
        "<answer>Suggestions: very bright, vivid</answer>"
    )
    # The two others are at 1.0 and 0.26; -2.0 - 2.6 is far below what any light evokes.
    assert points(own_c) == [(-2.0, 0.5), (0.6, 0.5), (-4.6, 0.5)]
    assert own_c.truth == {"suggestions": ("very dark", "pale")}
    assert points(plane)[0] not in {(one.valence, one.arousal) for one in CATS}


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


def test_drawings_lie_together_up_to_a_miss_away(samples, criticised):
    by_id = {sample.id: sample for sample in samples}
    gaps = []
    for question in criticised:
        wanted, reached, aim = points(question)
        own = by_id[question.id.split("/")[0]]
        best, worst = (by_id[path.stem] for path in question.images)
        assert len({own.id, best.id, worst.id}) == 3
        assert {own.split, best.split, worst.split} == {question.split}
        assert own.attributes == best.attributes == worst.attributes
        assert far(best, wanted) < far(worst, wanted)
        gaps.append([want - have for want, have in zip(wanted, reached, strict=True)])
        lead = [there - want for there, want in zip(aim, wanted, strict=True)]
        assert lead == pytest.approx(gaps[-1], abs=1e-9)
        assert f"{own.prompt}, valence" in question.text
    assert len(criticised) > 200
    near = np.abs(gaps).sum(1)
    assert np.abs(np.mean(gaps, 0)).max() < 0.2, "to all sides"
    assert 0.1 < (near < 0.75).mean() < 0.5
    assert (near > 2 * MISS).mean() < 0.15


def test_half_of_the_questions_want_any_point_of_the_plane(samples, criticised):
    by_id = {sample.id: sample for sample in samples}
    anywhere = [
        wanted
        for question in criticised
        if far(by_id[question.id.split("/")[0]], wanted := points(question)[0]) > 0.1 + 1e-9
    ]
    assert 0.4 < len(anywhere) / len(criticised) < 0.6
    corners = [point for point in anywhere if abs(point[0]) > 1.5 and abs(point[1]) > 1.5]
    assert 0.15 < len(corners) / len(anywhere) < 0.35
    assert {(v > 0, a > 0) for v, a in corners} == {(x, y) for x in (0, 1) for y in (0, 1)}
    assert max(abs(number) for point in anywhere for number in point) <= 3


def test_the_suggested_light_is_that_of_pictures_as_far_beyond(samples, criticised):
    """Its twin: the pictures of the same subject that evoke the aim have this light."""
    by_id = {sample.id: sample for sample in samples}
    same, found = 0, 0
    for question in criticised:
        own = by_id[question.id.split("/")[0]]
        *_, aim = points(question)
        for one in samples:
            if one.attributes == own.attributes and far(one, aim) < 0.4:
                found += 1
                same += light_of(one.emotional_prompt) == question.truth["suggestions"]
    assert found > 20
    assert same / found > 0.7, "all but those at the border between two words"


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
