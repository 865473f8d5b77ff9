from __future__ import annotations

from itertools import permutations

import pytest

from emosym.affect.ranking import kendall, ranking_score
from emosym.affect.taxonomies import EKMAN7

TRUE = ("fear", "anger", "neutral")


@pytest.mark.parametrize(
    ("predicted", "score"),
    [
        (("fear", "disgust", "neutral"), 0.25 + 0.10 + 0.5 * 2 / 3),  # the published example
        (TRUE, 1.0),
        (TRUE[::-1], 0.5),  # all hits, no order
        (("joy", "sadness", "surprise"), 0.0),
        (("joy", "fear", "surprise"), 0.25),  # one shared: no order
        (("anger", "fear"), 0.25 + 0.15),  # two shared, reversed
        (("fear", "fear", "anger"), 0.25 + 0.15 + 0.5 * 2 / 3),  # named twice, counted once
        (("joy", "sadness", "surprise", "fear"), 0.0),  # a fourth counts nothing
        ((), 0.0),
    ],
)
def test_scores_by_hand(predicted, score):
    assert ranking_score(TRUE, predicted) == pytest.approx(score)


def test_only_thirteen_scores_can_be_had():
    scores = {
        round(100 * ranking_score(TRUE, predicted), 2) for predicted in permutations(EKMAN7, 3)
    }
    possible = {0, 10, 15, 25, 35, 40, 50, 58.33, 66.67, 68.33, 73.33, 83.33, 100}
    assert scores == possible


def test_a_guess_earns_what_was_published():
    guesses = [ranking_score(TRUE, predicted) for predicted in permutations(EKMAN7, 3)]
    assert 100 * sum(guesses) / len(guesses) == pytest.approx(27.86, abs=0.005)


def test_kendall_by_hand():
    assert kendall([0, 1, 2]) == 1
    assert kendall([2, 1, 0]) == -1
    assert kendall([0, 2, 1]) == pytest.approx(1 / 3)
