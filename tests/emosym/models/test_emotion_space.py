from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from emosym.errors import UserError
from emosym.models.emotion_space import EmotionSpace, Gaussian, blend_shares
from emosym.randomness import Draws


def gaussian(mean: float, std: float) -> Gaussian:
    return Gaussian(torch.full((3, 2), mean), torch.full((3, 2), std))


SPACE = EmotionSpace({"awe": gaussian(1.0, 0.5), "fear": gaussian(-3.0, 1.5)})


# --- blends


def test_a_blend_by_hand():
    """Between 1 ± 0.5 and -3 ± 1.5: means and deviations go along straight lines."""
    for share, mean, std in ((0.0, 1.0, 0.5), (0.25, 0.0, 0.75), (0.5, -1.0, 1.0), (1, -3.0, 1.5)):
        found = SPACE.blend({"awe": 1 - share, "fear": share})
        assert found.mean.unique().item() == pytest.approx(mean)
        assert found.std.unique().item() == pytest.approx(std)
    three = {"awe": 2.0, "fear": 1.0, "sadness": 1.0}
    space = EmotionSpace(SPACE.gaussians | {"sadness": gaussian(7.0, 3.0)})
    assert space.blend(three).mean[0, 0].item() == pytest.approx((2 - 3 + 7) / 4)


def test_the_spread_of_a_blend_is_that_of_its_draws():
    states = SPACE.sample({"awe": 3, "fear": 1}, range(2000))
    assert states.shape == (2000, 3, 2)
    assert states.mean().item() == pytest.approx(0.0, abs=0.02)
    assert states.std().item() == pytest.approx(0.75, abs=0.02)
    # Numbers are independent, also from those of other seeds' images.
    assert np.abs(np.corrcoef(states.flatten(1).T) - np.eye(6)).max() < 0.1
    assert not torch.equal(Draws("emotion space", 0).normal(1), Draws("image", 0).normal(1))


def test_a_seed_is_a_state_whatever_is_drawn_beside_it():
    both = SPACE.sample({"awe": 1}, [5, 6])
    assert torch.equal(both[1:], SPACE.sample({"Awe": 0.3}, [6]))
    near = SPACE.sample({"awe": 0.99, "fear": 0.01}, [5, 6])
    assert 0 < (near - both).abs().max() < 0.1


def test_shares_by_label():
    assert blend_shares({" Sad": 1, "content": 3}) == {"sadness": 0.25, "contentment": 0.75}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "the sum of the weights in a blend, by which each is divided; got 0"),
        ({"awe": 0.0}, "the sum of the weights in a blend, by which each is divided; got 0.0"),
        ({"awe": 1e308, "fear": 1e308}, "a blend, by which each is divided; got inf"),
        ({"awe": -1.0, "fear": 2.0}, "the weight of awe in a blend; got -1.0; expected a finite"),
        ({"awe": math.nan}, "the weight of awe in a blend; got nan"),
        ({"awe": "1"}, "the weight of awe in a blend; got '1'; expected a finite number, 0 or"),
        (["awe", "fear"], r"a blend; got \['awe', 'fear'\]; expected emotion -> weight, as in"),
        ({"sad": 1, "sadness": 1}, "sadness is given twice in a blend"),
        ({"aw": 1}, r"unknown emotion 'aw'; .*did you mean 'awe'\?"),
    ],
)
def test_blends_that_are_none(weights, message):
    with pytest.raises(UserError, match=message):
        blend_shares(weights)


def test_an_emotion_that_no_image_had():
    with pytest.raises(UserError, match=r"has no anger; expected one of awe, fear; fit it again"):
        SPACE.blend({"awe": 1, "anger": 1})


# --- there and back


def test_a_space_comes_back():
    again = EmotionSpace.from_state_dict(SPACE.state_dict(), (3, 2))
    assert list(SPACE.state_dict()) == ["awe.mean", "awe.std", "fear.mean", "fear.std"]
    for name, one in SPACE.gaussians.items():
        assert torch.equal(again.gaussians[name].mean, one.mean)
        assert torch.equal(again.gaussians[name].std, one.std)


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"awe.mean": torch.zeros(2, 2)}, "awe.mean"),
        ({"awe.mean": torch.full((3, 2), math.nan)}, "awe.mean"),
        ({"fear.std": torch.full((3, 2), -1.0)}, "fear.std"),
        ({"joy.mean": torch.zeros(3, 2)}, "joy.mean"),
        ({"anger.mean": torch.zeros(3, 2)}, "anger.std"),
    ],
)
def test_a_space_of_another_model(change, first):
    with pytest.raises(
        UserError, match=f"does not belong to this model; .*, first {first}; .*again"
    ):
        EmotionSpace.from_state_dict(SPACE.state_dict() | change, (3, 2))
    with pytest.raises(UserError, match="does not belong to this model; got none"):
        EmotionSpace.from_state_dict({}, (3, 2))
