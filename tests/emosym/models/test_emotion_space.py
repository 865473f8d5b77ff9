from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.inference.recognition import questions
from emosym.models.emotion_space import EmotionSpace, Gaussian, Moments, fit_space, pick, shares
from emosym.models.model import EmoSym
from emosym.randomness import Draws
from emosym.records import ImageRequest, Sample
from tests.model_zoo.make import picture


def gaussian(mean: float, std: float) -> Gaussian:
    return Gaussian(torch.full((3, 2), mean), torch.full((3, 2), std))


SPACE = EmotionSpace({"awe": gaussian(1.0, 0.5), "fear": gaussian(-3.0, 1.5)})


def sample(number: int, emotion: str | None, split: str = "train") -> Sample:
    return Sample(id=f"{number:03d}", image=Path(f"{number}.png"), split=split, emotion=emotion)


# --- fitting


@pytest.mark.parametrize("sizes", [(50,), (1,) * 50, (3, 40, 7)])
def test_moments_are_numpys_however_they_come(sizes):
    """Far from zero, where a sum of squares would lose every digit."""
    rows = 1e6 + np.random.default_rng(0).normal(size=(50, 3, 2)) * np.array([1.0, 1e-2])
    moments = Moments()
    for part in torch.from_numpy(rows).split(sizes):
        moments.add(part)
    found = (moments.mean, (moments.squares / 50).sqrt())
    assert torch.allclose(found[0], torch.from_numpy(rows.mean(0)), rtol=1e-15, atol=0)
    assert torch.allclose(found[1], torch.from_numpy(rows.std(0)), rtol=1e-7, atol=0)
    assert moments.gaussian().mean.dtype == torch.float32


def test_one_image_has_no_spread():
    moments = Moments()
    moments.add(torch.ones(1, 2, 2))
    assert moments.gaussian().std.tolist() == [[0, 0], [0, 0]]


def test_a_space_is_what_images_of_an_emotion_put_the_model_in(tiny):
    labels = ["awe", "fear", "awe", "sadness", "awe", "fear"]
    samples = [sample(i, label) for i, label in enumerate(labels)]
    images = [picture(seed=i) for i in range(6)]
    told: list[int] = []
    found = fit_space(tiny, samples, lambda s: images[int(s.id)], batch_size=4, show=told.append)
    assert list(found.gaussians) == ["awe", "fear", "sadness"]
    assert told == [4, 6]
    reading = tiny.read(questions(tiny, images))
    states = torch.cat([reading.h_emo[:, None], reading.h_ctx], 1).numpy()
    for name, one in found.gaussians.items():
        rows = states[[label == name for label in labels]]
        assert one.mean.shape == (1 + tiny.config.reasoning_tokens, 160)
        assert np.abs(one.mean.numpy() - rows.mean(0)).max() < 1e-4
        assert np.abs(one.std.numpy() - rows.std(0)).max() < 1e-4
    assert found.gaussians["awe"].std.max() > 0.01


def test_no_image_and_no_number(tiny):
    with pytest.raises(UserError, match="no images to make an emotion space of; expected images"):
        fit_space(tiny, [], lambda s: picture())
    broken = copy.deepcopy(tiny)
    with torch.no_grad():
        broken.understander.reasoner.emotion.fill_(math.nan)
    with pytest.raises(UserError, match="sees numbers that are not finite"):
        fit_space(broken, [sample(0, "awe")], lambda s: picture())


def test_images_are_picked_evenly_by_emotion():
    samples = [sample(i, "awe") for i in range(100)]
    samples += [sample(i, "fear") for i in range(100, 105)]
    samples += [sample(200, None), sample(201, "awe", "test"), sample(202, "sadness", "val")]
    found = pick(samples, 40)
    assert [s.id for s in found[:20]] == [f"{i:03d}" for i in range(0, 100, 5)]
    assert [s.id for s in found[20:]] == [f"{i}" for i in range(100, 105)]
    assert pick(samples[::-1], 40) == found
    assert pick(samples[-3:]) == []


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
    assert shares({" Sad": 1, "content": 3}) == {"sadness": 0.25, "contentment": 0.75}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "the weights of a blend sum to nothing that divides; got 0"),
        ({"awe": 0.0}, "the weights of a blend sum to nothing that divides; got 0.0"),
        ({"awe": 1e308, "fear": 1e308}, "sum to nothing that divides; got inf"),
        ({"awe": -1.0, "fear": 2.0}, "the weight of awe in a blend; got -1.0; expected a finite"),
        ({"awe": math.nan}, "the weight of awe in a blend; got nan"),
        ({"sad": 1, "sadness": 1}, "sadness comes twice in a blend"),
        ({"aw": 1}, r"unknown emotion 'aw'; .*did you mean 'awe'\?"),
    ],
)
def test_blends_that_are_none(weights, message):
    with pytest.raises(UserError, match=message):
        shares(weights)


def test_an_emotion_that_no_image_had():
    with pytest.raises(UserError, match=r"has no anger; expected one of awe, fear; make it again"):
        SPACE.blend({"awe": 1, "anger": 1})


# --- there and back


def test_a_space_comes_back():
    again = EmotionSpace.of_state(SPACE.state(), (3, 2))
    assert list(SPACE.state()) == ["awe.mean", "awe.std", "fear.mean", "fear.std"]
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
    with pytest.raises(UserError, match=f"not one of this model; .*, first {first}; .*again"):
        EmotionSpace.of_state(SPACE.state() | change, (3, 2))
    with pytest.raises(UserError, match="not one of this model; got none"):
        EmotionSpace.of_state({}, (3, 2))


# --- drawing


@pytest.fixture(scope="module")
def pipeline(tiny) -> EmoSymPipeline:
    """Return a model in whose space emotions are far apart."""
    model = copy.deepcopy(tiny)
    rng = torch.Generator().manual_seed(3)
    shape = (1 + model.config.reasoning_tokens, 160)
    model.space = EmotionSpace(
        {n: Gaussian(torch.randn(shape, generator=rng), torch.full(shape, 0.3)) for n in MIKELS8}
    )
    return EmoSymPipeline(model, batch_size=2)


def gap(a, b) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def test_images_follow_from_emotion_and_seed(pipeline):
    drawn = pipeline.imagine("awe", 3, seed=4, steps=2)
    assert [image.size for image in drawn] == [(64, 64)] * 3
    assert gap(drawn[0], drawn[1]) > 2
    for image, twin in zip(drawn, pipeline.imagine({"Awe": 2.0}, 3, seed=4, steps=2), strict=True):
        assert image.tobytes() == twin.tobytes()
    (alone,) = pipeline.imagine("awe", seed=5, steps=2)
    assert gap(alone, drawn[1]) <= 1
    for other in (
        pipeline.imagine("fear", 1, seed=4, steps=2),
        pipeline.imagine("awe", 1, seed=4, steps=2, prompt="a tree"),
        pipeline.imagine({"awe": 1, "fear": 1}, 1, seed=4, steps=2),
    ):
        assert gap(other[0], drawn[0]) > 1
    assert pipeline.imagine("awe", 0) == []


def test_the_condition_is_the_state_and_its_affect(pipeline):
    model = pipeline.model
    states = model.space.sample({"fear": 1}, [1, 2])
    with torch.no_grad():
        found = model.evoke(states, ["a", ""])
        affect = model.understander.affect_head(states[:, 0])
        text = model.generator.denoiser.encode_text(["a", ""])
    assert torch.equal(found.h_emo, states[:, 0])
    assert torch.equal(found.h_ctx, states[:, 1:])
    assert torch.equal(found.affect, affect)
    assert torch.equal(found.text.tokens, text.tokens)


def test_what_is_wanted_is_said_as_a_request(pipeline):
    one, two = pipeline.wanted("sad", 2, prompt=" a boat ", seed=9)
    states = pipeline.model.space.sample({"sadness": 1}, [9, 10])
    affect = pipeline.model.understander.affect_head(states[:, 0]).tolist()
    assert one == ImageRequest(
        prompt="a boat", emotion="sadness", valence=affect[0][0], arousal=affect[0][1]
    )
    assert (two.valence, two.arousal) == tuple(affect[1])
    assert pipeline.wanted({"awe": 1, "fear": 0})[0].emotion == "awe"
    (blended,) = pipeline.wanted({"awe": 1, "fear": 1}, seed=9)
    assert blended.emotion is None
    assert replace(blended, valence=None, arousal=None) == ImageRequest()


def test_a_model_without_a_space(tiny: EmoSym):
    for call in (EmoSymPipeline(tiny).imagine, EmoSymPipeline(tiny).wanted):
        with pytest.raises(UserError, match=r"no emotion space; make one .*`emosym zoo space MODE"):
            call("awe")
