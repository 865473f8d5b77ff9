"""Steered states: by hand, against a regression of the states themselves, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.models.steering import RIDGE, steer

BAD, GOOD = torch.full((1, 2), 1.0), torch.tensor([[3.0, 5.0]])
LINE = [Affect(-1.0, 0.0), Affect(1.0, 0.0)]


def test_two_images_by_hand():
    """Squares of valence 2, with the ridge 2.1: the step is 2.1 / 2.1 = 1, away from the first."""
    found = steer(torch.stack([BAD, GOOD]), LINE, Affect(2.1, 0.0))
    assert found.images == pytest.approx((-0.5, 1.5))
    assert found.emotions == {}
    assert found.affect.coordinates == pytest.approx((2.0, 0.0))
    assert torch.allclose(found.state, -0.5 * BAD + 1.5 * GOOD)


def test_emotions_show_the_direction_by_hand():
    """Squares 2 + 8 + 0.1 = 10.1, a step of 0.1; all that the emotions share has no weight."""
    emotions = {
        "fear": (torch.full((1, 2), 7.0), Affect(-2.5, 1.0)),
        "awe": (torch.full((1, 2), 9.0), Affect(1.5, 1.0)),
    }
    found = steer(torch.stack([BAD, GOOD]), LINE, Affect(1.01, 0.0), emotions)
    assert found.images == pytest.approx((0.4, 0.6))
    assert found.emotions == pytest.approx({"fear": -0.2, "awe": 0.2})
    assert found.affect.coordinates == pytest.approx((1.0, 0.0))
    assert torch.allclose(found.state, 0.4 * BAD + 0.6 * GOOD + 0.2 * 2)


def test_where_all_images_are_alike_no_direction_is_made_up():
    found = steer(torch.stack([BAD, GOOD]), LINE, Affect(0.0, 3.0))
    assert found.images == pytest.approx((0.5, 0.5))
    assert found.affect.coordinates == pytest.approx((0.0, 0.0)), "arousal was not varied"
    alone = steer(GOOD[None], [Affect(1.0, 1.0)], Affect(-3.0, -3.0))
    assert alone.images == pytest.approx((1.0,))
    assert torch.allclose(alone.state, GOOD)


COORDINATE = st.floats(-3, 3)
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=1, max_size=9)


@given(
    images=POINTS, emotions=POINTS, aim=st.tuples(COORDINATE, COORDINATE), seed=st.integers(0, 9)
)
def test_it_is_a_ridge_regression_of_states_on_affect(images, emotions, aim, seed):
    """The twin regresses states, with a level for each group, and predicts one at the aim."""
    rng = np.random.default_rng(seed)
    states, means = rng.normal(size=(len(images), 2, 3)), rng.normal(size=(len(emotions), 2, 3))
    known = {
        str(i): (torch.tensor(mean), Affect(*point))
        for i, (mean, point) in enumerate(zip(means, emotions, strict=True))
    }
    found = steer(torch.tensor(states), [Affect(*p) for p in images], Affect(*aim), known)

    a, e = np.array(images), np.array(emotions)
    x = np.concatenate([a - a.mean(0), e - e.mean(0)])
    y = np.concatenate([states - states.mean(0), means - means.mean(0)]).reshape(len(x), -1)
    x_ridge = np.concatenate([x, np.sqrt(RIDGE) * np.eye(2)])
    slope = np.linalg.lstsq(x_ridge, np.concatenate([y, np.zeros((2, 6))]), rcond=None)[0]
    expected = states.mean(0) + ((np.array(aim) - a.mean(0)) @ slope).reshape(2, 3)
    assert np.allclose(found.state.numpy(), expected, atol=1e-6)

    assert sum(found.images) == pytest.approx(1)
    assert sum(found.emotions.values()) == pytest.approx(0, abs=1e-9)
    predicted = np.array(found.images) @ a + np.array([*found.emotions.values()]) @ e
    assert found.affect.coordinates == pytest.approx(tuple(predicted), abs=1e-9)


@given(aim=st.tuples(COORDINATE, COORDINATE))
def test_the_aim_is_reached_up_to_the_ridge(aim):
    """Four corners at ±2: squares of 16 on each axis, so 16 of 16.1 parts of the way."""
    corners = [Affect(v, a) for v in (-2.0, 2.0) for a in (-2.0, 2.0)]
    found = steer(torch.randn(4, 1, 2), corners, Affect(*aim))
    share = 16 / (16 + RIDGE)
    assert found.affect.coordinates == pytest.approx((share * aim[0], share * aim[1]), abs=1e-9)
    if max(map(abs, aim)) <= 1:  # |weight| is at most 1/4 + 2 · 2 · 1 / 16
        assert min(found.images) >= -1e-9, "inside of the images it is a mean of them"


@pytest.mark.parametrize("affects", [[], LINE[:1], [*LINE, LINE[0]]])
def test_each_image_needs_its_affect(affects):
    with pytest.raises(UserError, match=rf"of each image; got {len(affects)} of 2 images"):
        steer(torch.stack([BAD, GOOD]), affects, Affect(0.0, 0.0))
    with pytest.raises(UserError, match="got 0 of 0 images; expected one for each of at least one"):
        steer(torch.empty(0), [], Affect(0.0, 0.0))
