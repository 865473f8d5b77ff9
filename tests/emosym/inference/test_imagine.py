"""Images from an emotion alone: a state of the emotion space, and noise."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.models.emotion_space import EmotionSpace, Gaussian
from emosym.models.model import EmoSym
from emosym.records import ImageRequest


@pytest.fixture(scope="module")
def pipeline(tiny) -> EmoSymPipeline:
    """Return a model in whose space emotions are far apart."""
    model = copy.deepcopy(tiny)
    rng = torch.Generator().manual_seed(3)
    shape = (1 + model.config.reasoning_tokens, 160)
    model.space = EmotionSpace(
        {
            name: Gaussian(
                torch.randn(shape, generator=rng), 0.1 * torch.randn(9, *shape, generator=rng)
            )
            for name in MIKELS8
        }
    )
    return EmoSymPipeline(model, batch_size=2)


def gap(a, b) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def test_images_follow_from_emotion_and_seed(pipeline):
    drawn = pipeline.imagine("awe", 3, seed=4, num_inference_steps=2)
    assert [image.size for image in drawn] == [(64, 64)] * 3
    assert gap(drawn[0], drawn[1]) > 2
    twins = pipeline.imagine({"Awe": 2.0}, 3, seed=4, num_inference_steps=2)
    for image, twin in zip(drawn, twins, strict=True):
        assert image.tobytes() == twin.tobytes()
    (alone,) = pipeline.imagine("awe", seed=5, num_inference_steps=2)
    assert gap(alone, drawn[1]) <= 1
    for other in (
        pipeline.imagine("fear", 1, seed=4, num_inference_steps=2),
        pipeline.imagine("awe", 1, seed=4, num_inference_steps=2, prompt="a tree"),
        pipeline.imagine({"awe": 1, "fear": 1}, 1, seed=4, num_inference_steps=2),
    ):
        assert gap(other[0], drawn[0]) > 1
    with pytest.raises(UserError, match="num_images_per_prompt; got 0; expected 1 or more"):
        pipeline.imagine("awe", 0)


def test_the_condition_is_the_state_and_its_affect(pipeline):
    model = pipeline.model
    states = model.space.sample({"fear": 1}, [1, 2])
    with torch.no_grad():
        found = model.condition_on_states(states, ["a", ""])
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
        prompt="a boat", emotion="sadness", affect=Affect(affect[0][0], affect[0][1])
    )
    assert two.affect == Affect(*affect[1])
    assert pipeline.wanted({"awe": 1, "fear": 0})[0].emotion == "awe"
    (blended,) = pipeline.wanted({"awe": 1, "fear": 1}, seed=9)
    assert blended.emotion is None
    assert replace(blended, affect=None) == ImageRequest()


def test_a_model_without_a_space(tiny: EmoSym):
    for call in (EmoSymPipeline(tiny).imagine, EmoSymPipeline(tiny).wanted):
        with pytest.raises(UserError, match=r"no emotion space; make one .*`emosym zoo space MODE"):
            call("awe")
