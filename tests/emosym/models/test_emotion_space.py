from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from emosym.errors import UserError
from emosym.models.emotion_space import EmotionSpace, Gaussian, blend_shares
from emosym.randomness import Draws


def gaussian(mean: float, *rows: list[float]) -> Gaussian:
    """Return a Gaussian over states [3, 2] with a constant mean and the factor's rows."""
    return Gaussian(torch.full((3, 2), mean), torch.tensor(rows).reshape(-1, 3, 2))


def covariance(one: Gaussian) -> np.ndarray:
    """Return the covariance of the flattened state, in float64."""
    factor = one.factor.flatten(1).numpy().astype(float)
    return factor.T @ factor


SPACE = EmotionSpace(
    {
        "awe": gaussian(1.0, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [0, 0, 0.3, -0.3, 0, 0]),
        "fear": gaussian(-3.0, [1.5, -1.0, 0, 0, 0.5, 2.0], [0, 0, 0, 0, 0, 0]),
    }
)
"""Two directions for awe, one for fear."""


# --- blends


def test_a_blend_by_hand():
    """Between 1 and -3: means and covariances go along straight lines."""
    awe, fear = (covariance(SPACE.gaussians[name]) for name in ("awe", "fear"))
    assert awe[2].tolist() == pytest.approx([0.25, 0.25, 0.34, 0.16, 0.25, 0.25])
    assert fear[0].tolist() == pytest.approx([2.25, -1.5, 0, 0, 0.75, 3.0])
    for share, mean in ((0.0, 1.0), (0.25, 0.0), (0.5, -1.0), (1.0, -3.0)):
        found = SPACE.blend({"awe": 1 - share, "fear": share})
        assert found.mean.unique().item() == pytest.approx(mean)
        assert np.abs(covariance(found) - (1 - share) * awe - share * fear).max() < 1e-6
    three = {"sadness": 1.0, "fear": 1.0, "awe": 2.0}
    sadness = gaussian(7.0, [3.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1.0])
    found = EmotionSpace(SPACE.gaussians | {"sadness": sadness}).blend(three)
    assert found.mean[0, 0].item() == pytest.approx((2 - 3 + 7) / 4)
    assert found.factor.shape == (6, 3, 2)
    expected = awe / 2 + fear / 4 + covariance(sadness) / 4
    assert np.abs(covariance(found) - expected).max() < 1e-6


@pytest.mark.parametrize("weights", [{"fear": 3.0}, {"awe": 0.0, "fear": 1e-3}])
def test_a_blend_of_one_emotion_is_its_gaussian(weights):
    found = SPACE.blend(weights)
    assert torch.equal(found.mean, SPACE.gaussians["fear"].mean)
    assert torch.equal(found.factor, SPACE.gaussians["fear"].factor)


def test_the_spread_of_a_blend_is_that_of_its_draws():
    """Within five standard errors: of a mean, and of a covariance of Gaussian numbers."""
    weights, count = {"awe": 3, "fear": 1}, 4000
    states = SPACE.sample(weights, range(count))
    assert states.shape == (count, 3, 2)
    rows, expected = states.flatten(1).numpy().astype(float), covariance(SPACE.blend(weights))
    variances = np.diag(expected)
    assert (np.abs(rows.mean(0)) < 5 * np.sqrt(variances / count)).all()
    errors = np.sqrt((np.outer(variances, variances) + expected**2) / count)
    assert (np.abs(np.cov(rows.T) - expected) < 5 * errors).all()
    # Seeds are independent of each other, and of the noise of images.
    pairs = np.corrcoef(rows[:-1, 0], rows[1:, 0])
    assert abs(pairs[0, 1]) < 5 / math.sqrt(count)
    assert not torch.equal(Draws("emotion space", 0, "awe").normal(1), Draws("image", 0).normal(1))


def test_states_stay_among_the_directions_of_their_emotions():
    """Three directions in six dimensions; the other three of the state are those of the mean."""
    weights = {"awe": 0.4, "fear": 0.6}
    blend = SPACE.blend(weights)
    rows = (SPACE.sample(weights, range(20)) - blend.mean).flatten(1).numpy().astype(float)
    span = blend.factor.flatten(1).numpy().astype(float)
    residual = rows - rows @ np.linalg.pinv(span) @ span
    assert np.abs(residual).max() < 1e-5
    assert np.linalg.matrix_rank(rows, tol=1e-4) == 3


def test_a_seed_is_a_state_whatever_is_drawn_beside_it():
    both = SPACE.sample({"awe": 1}, [5, 6])
    assert torch.equal(both[1:], SPACE.sample({"Awe": 0.3}, [6]))
    mixed = SPACE.sample({"fear": 1, "awe": 2}, [5, 6])
    assert torch.equal(mixed, SPACE.sample({"awe": 4, "fear": 2}, [5, 6]))
    turned = EmotionSpace(dict(reversed(SPACE.gaussians.items())))
    assert torch.allclose(mixed, turned.sample({"awe": 2, "fear": 1}, [5, 6]), atol=1e-6)
    larger = EmotionSpace({"anger": SPACE.gaussians["fear"]} | SPACE.gaussians)
    assert torch.equal(mixed, larger.sample({"awe": 2, "fear": 1}, [5, 6]))
    assert torch.equal(both, larger.sample({"awe": 1}, [5, 6]))


@pytest.mark.parametrize("share", [1e-2, 1e-4, 1e-6])
def test_similar_weights_give_similar_states(share):
    """The emotion that joins adds its own draw, times the root of its share."""
    seeds = [5, 6]
    alone = {name: SPACE.sample({name: 1}, seeds) for name in SPACE.gaussians}
    found = SPACE.sample({"awe": 1 - share, "fear": share}, seeds)
    moved = (found - alone["awe"]) / math.sqrt(share)
    joined = alone["fear"] - SPACE.gaussians["fear"].mean
    assert 1 < joined.abs().max() < 5
    assert (moved - joined).abs().max() < 5 * math.sqrt(share) + 1e-3
    unmoved = SPACE.sample({"awe": 1.0, "fear": 0.0}, seeds)
    assert torch.equal(unmoved, alone["awe"])


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
    assert list(SPACE.state_dict()) == ["awe.mean", "awe.factor", "fear.mean", "fear.factor"]
    for name, one in SPACE.gaussians.items():
        assert torch.equal(again.gaussians[name].mean, one.mean)
        assert torch.equal(again.gaussians[name].factor, one.factor)
    for seed in (1, 2):
        weights = {"awe": 1, "fear": 2}
        assert torch.equal(again.sample(weights, [seed]), SPACE.sample(weights, [seed]))


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"awe.mean": torch.zeros(2, 2)}, "awe.mean"),
        ({"awe.mean": torch.full((3, 2), math.nan)}, "awe.mean"),
        ({"fear.factor": torch.full((2, 3, 2), math.inf)}, "fear.factor"),
        ({"fear.factor": torch.zeros(2, 3, 3)}, "fear.factor"),
        ({"fear.factor": torch.zeros(3, 2)}, "fear.factor"),
        ({"fear.factor": torch.zeros(())}, "fear.factor"),
        ({"fear.factor": torch.zeros(1, 3, 2)}, "fear.factor"),
        ({"joy.mean": torch.zeros(3, 2)}, "joy.mean"),
        ({"anger.mean": torch.zeros(3, 2)}, "anger.factor"),
        ({"anger.factor": torch.zeros(2, 3, 2)}, "anger.factor"),
        ({"awe.std": torch.ones(3, 2)}, "awe.std"),
    ],
)
def test_a_space_of_another_model(change, first):
    with pytest.raises(
        UserError, match=f"does not belong to this model; .*, first {first}; .*again"
    ):
        EmotionSpace.from_state_dict(SPACE.state_dict() | change, (3, 2))
    with pytest.raises(UserError, match="does not belong to this model; got none"):
        EmotionSpace.from_state_dict({}, (3, 2))


def test_a_space_of_deviations_is_to_be_fitted_again():
    old = {
        f"{name}.{field}": torch.ones(3, 2) for name in ("awe", "fear") for field in ("mean", "std")
    }
    with pytest.raises(
        UserError,
        match=r"got 4 tensors that do not fit, first awe.factor; expected a finite mean \[3, 2\] "
        r"for each emotion, and a finite factor of the covariance \[R, 3, 2\] with one R for all; "
        r"fit it again: `emosym zoo space MODEL --data FOLDER` --overwrite",
    ):
        EmotionSpace.from_state_dict(old, (3, 2))
