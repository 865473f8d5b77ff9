from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.affectworld.truth import label_of, votes_at
from data_tools.affectworld.world import draw_world, write_world
from data_tools.labels.votes import vote_problems
from data_tools.sources.oasis import read_oasis
from data_tools.sources.registry import read_source
from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8, NORMS
from emosym.records import Sample
from emosym.tasks.votes import implied_votes, main_emotion, top_emotions, votes_of

RATING = st.floats(-3, 3, allow_nan=False)


def sample(**fields) -> Sample:
    return Sample(id="1", image=Path("/a.jpg"), split="train", **fields)


def test_votes_of_the_world_by_hand():
    # 22.5 degrees: the middle of amusement; contentment and excitement lie 45 degrees to each
    # side, fear and awe 90, the rest behind.
    votes = votes_at(Affect(math.cos(math.radians(22.5)), math.sin(math.radians(22.5))))
    assert votes["amusement"] == pytest.approx(1)
    assert votes["excitement"] == pytest.approx(math.sqrt(0.5))
    assert votes["contentment"] == pytest.approx(math.sqrt(0.5))
    assert max(votes[name] for name in ("fear", "awe", "anger", "disgust", "sadness")) < 1e-15
    # 80 degrees: 12.5 from the middle of excitement (67.5), 32.5 from fear (112.5), 57.5 from
    # amusement (22.5), 77.5 from anger (157.5); contentment (337.5) is 102.5 away.
    votes = votes_at(Affect(math.cos(math.radians(80)), math.sin(math.radians(80))))
    for name, degrees in {
        "excitement": 12.5,
        "fear": 32.5,
        "amusement": 57.5,
        "anger": 77.5,
    }.items():
        assert votes[name] == pytest.approx(math.cos(math.radians(degrees)))
    assert votes["contentment"] == 0


@given(RATING, RATING)
def test_the_strongest_emotion_of_the_world_is_its_label(valence, arousal):
    label = label_of(Affect(valence, arousal))
    votes = votes_at(Affect(valence, arousal))
    assert tuple(votes) == MIKELS8
    top = top_emotions(sample(emotion=label, valence=valence, arousal=arousal, votes=votes))
    assert top[0] == label
    assert len(set(top)) == 3


def test_a_drawn_world_carries_its_votes_through_the_disk(tmp_path):
    write_world(tmp_path / "w", 16, seed=3, size=32)
    samples, broken = read_source("emoset", tmp_path / "w")
    drawn = {item.id: item for item in draw_world(16, seed=3, size=32)}
    assert broken == []
    for item in samples:
        assert item.votes == votes_at(drawn[item.id].affect)
        assert main_emotion(item) == top_emotions(item)[0] == item.emotion


def test_implied_votes_are_a_softmax_of_the_distance_to_the_words():
    votes = implied_votes(Affect(-1.0, 2.0))
    assert sum(votes.values()) == pytest.approx(1)
    # On 1-9 the point is (11/3, 23/3); fear's norm is (2.93, 6.14) and awe's (6.85, 3.83). A unit
    # there is 6/8 of a unit here.
    fear = (abs(11 / 3 - 2.93) + abs(23 / 3 - 6.14)) * 6 / 8
    awe = (abs(11 / 3 - 6.85) + abs(23 / 3 - 3.83)) * 6 / 8
    assert votes["fear"] / votes["awe"] == pytest.approx(math.exp(awe - fear))
    for name, norm in NORMS.items():
        here = norm.to(type(norm.scale)(-3, 3))
        assert max(MIKELS8, key=implied_votes(here).get) == name


def test_votes_are_implied_only_where_nothing_is_known():
    given_votes = {"awe": 2.0, "fear": 1.0}
    assert votes_of(sample(votes=given_votes, valence=1.0, arousal=1.0)) == given_votes
    assert votes_of(sample(emotion="awe", valence=1.0, arousal=1.0)) == {}
    assert votes_of(sample(valence=1.0)) == {}
    assert votes_of(sample(valence=1.0, arousal=1.0)) == implied_votes(Affect(1.0, 1.0))


def test_the_three_with_most_votes():
    votes = {"sadness": 2.0, "awe": 1.0, "fear": 2.0, "anger": 3.0, "disgust": 0.0}
    assert top_emotions(sample(votes=votes)) == ("anger", "fear", "sadness")
    assert top_emotions(sample(votes=votes, emotion="sadness")) == ("anger", "sadness", "fear")
    assert top_emotions(sample(votes={"awe": 1, "fear": 1, "anger": 0})) is None
    assert top_emotions(sample(emotion="awe")) is None
    assert main_emotion(sample(emotion="awe")) == "awe"
    assert main_emotion(sample(votes=votes)) == "anger"
    assert main_emotion(sample()) is None


@pytest.mark.parametrize(
    ("votes", "why"),
    [
        ([1, 2], "expected an object of emotions and weights, got [1, 2]"),
        ({"joy": 1}, "unknown emotion 'joy'; expected one of amusement"),
        ({"awe": -0.1}, "the weight of 'awe' is -0.1; expected a finite number >= 0"),
        ({"awe": math.nan}, "the weight of 'awe' is nan"),
        ({"awe": math.inf}, "the weight of 'awe' is inf"),
        ({"awe": 10**400}, "the weight of 'awe' is 1000"),
        ({"awe": True}, "the weight of 'awe' is not a number: True"),
        ({"awe": "1"}, "the weight of 'awe' is not a number: '1'"),
        ({"awe": 0.0}, "no weight is above 0"),
        ({}, "no weight is above 0"),
    ],
)
def test_what_are_no_votes(votes, why):
    (found,) = vote_problems(votes)
    assert found.startswith(why)


def test_oasis_carries_ranking_by_implied_votes(shared):
    items = list(read_oasis(shared / "oasis"))
    tops = [top_emotions(item) for item in items]
    assert all(len(set(top)) == 3 for top in tops)
    assert {top[0] for top in tops} == set(MIKELS8)
