from __future__ import annotations

import random

import pytest

from train.phases.reinforce.hacking import ALARM, divergence


def test_by_hand():
    """Halves [1, 3] and [5, 7]: a rise of 4, variances 2 and 2, standard error sqrt(4 / 2)."""
    up, down = [1.0, 3.0, 5.0, 7.0], [7.0, 5.0, 3.0, 1.0]
    assert divergence(up, down) == pytest.approx(4 / 2**0.5)
    # The smaller of the two moves counts: a fall of 2 at variances 2 and 2.
    assert divergence(up, [5.0, 7.0, 3.0, 5.0]) == pytest.approx(2 / 2**0.5)


@pytest.mark.parametrize(
    ("reward", "second"),
    [
        ([1.0, 1.1, 2.0, 2.1], [1.0, 1.1, 2.0, 2.1]),
        ([2.0, 2.1, 1.0, 1.1], [2.0, 2.1, 1.0, 1.1]),
        ([2.0, 2.1, 1.0, 1.1], [1.0, 1.1, 2.0, 2.1]),
        ([1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 1.0, 1.0]),
        ([1.0] * 4, [1.0] * 4),
    ],
)
def test_it_is_zero_unless_the_reward_rises_and_the_second_judge_falls(reward, second):
    assert divergence(reward, second) == 0


def test_noise_alone_seldom_alarms():
    draw = random.Random(0).gauss
    alarms = sum(
        divergence([draw(0, 1) for _ in range(60)], [draw(0, 1) for _ in range(60)]) > ALARM
        for _ in range(2000)
    )
    assert alarms / 2000 < 0.005


def test_a_slow_parting_is_seen_through_noise():
    draw = random.Random(1).gauss
    reward = [0.02 * step + draw(0, 0.5) for step in range(60)]
    second = [-0.02 * step + draw(0, 0.5) for step in range(60)]
    assert divergence(reward, second) > ALARM
