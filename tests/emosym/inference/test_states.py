"""Images from given states, and states that are steered by the real model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.inference.inputs import complete
from emosym.inference.pipeline import EmoSymPipeline
from emosym.inference.states import request_states
from emosym.models.emotion_space import EmotionSpace, Gaussian
from emosym.models.steering import steer
from emosym.records import ImageRequest
from tests.model_zoo.make import pictures

REQUESTS = [
    ImageRequest(prompt="a boat", affect=Affect(2.0, -1.0)),
    ImageRequest(prompt="a tree", emotion="awe"),
    ImageRequest(prompt="a house"),
]
AFFECTS = [Affect(1.0, 0.0), Affect(-1.0, 2.0), Affect(0.0, -2.0)]


@pytest.fixture(scope="module")
def pipeline(tiny) -> EmoSymPipeline:
    return EmoSymPipeline(tiny, batch_size=2)


@pytest.fixture(scope="module")
def states(pipeline) -> torch.Tensor:
    """Return three states of images."""
    return torch.stack([pipeline.steer([one], [Affect(0, 0)], Affect(0, 0)).state for one in SEEN])


SEEN = pictures(3)


def gap(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def drawn(pipeline, **options) -> list[Image.Image]:
    return pipeline.generate(REQUESTS, seed=4, num_inference_steps=2, **options)


def test_a_requests_own_state_gives_the_same_bytes(pipeline):
    batches = [[complete(one) for one in part] for part in (REQUESTS[:2], REQUESTS[2:])]
    own = torch.cat([request_states(pipeline.model, batch) for batch in batches])
    for image, twin in zip(drawn(pipeline), drawn(pipeline, states=own), strict=True):
        assert image.tobytes() == twin.tobytes()


def test_each_image_has_its_own_state(pipeline, states):
    without, given = drawn(pipeline), drawn(pipeline, states=states)
    assert min(map(gap, without, given)) > 2
    for place, image in enumerate(given):
        (alone,) = pipeline.generate(
            REQUESTS[place : place + 1],
            seed=4 + place,
            num_inference_steps=2,
            states=states[place : place + 1],
        )
        assert gap(alone, image) <= 1
    repeated = pipeline.generate(
        REQUESTS[0], num_images_per_prompt=3, seed=4, num_inference_steps=2, states=states
    )
    assert gap(repeated[0], given[0]) <= 1


def test_the_wanted_affect_stays_that_of_the_request(pipeline, states):
    """A request without valence and arousal does not get those of the state."""
    changed = [ImageRequest(prompt="a house", affect=Affect(-3.0, 3.0))]
    options = {"seed": 4, "num_inference_steps": 2, "states": states[:1]}
    (without,) = pipeline.generate(REQUESTS[2:], **options)
    (with_,) = pipeline.generate(changed, **options)
    assert gap(without, with_) > 2


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda s: s[..., :-1], r"a tensor \[3, 9, 159\]"),
        (lambda s: s[:, 1:], r"a tensor \[3, 8, 160\]"),
        (lambda s: s[:2], r"a tensor \[2, 9, 160\]"),
        (lambda s: torch.cat([s, s]), r"a tensor \[6, 9, 160\]"),
        (lambda s: s[0], r"a tensor \[9, 160\]"),
        (lambda s: s * torch.inf, "numbers that are not finite"),
        (lambda s: s.tolist(), "list"),
    ],
)
def test_states_of_another_model_are_refused(pipeline, states, change, got):
    expected = r"a tensor \[3, 9, 160\]: images, 1 \+ reasoning tokens, width"
    with pytest.raises(UserError, match=f"no states of the model; got {got}; expected {expected}"):
        drawn(pipeline, states=change(states))
    with pytest.raises(UserError, match=f"no states of the model; got {got}"):
        pipeline.draw(REQUESTS, pipeline._noise([1, 2, 3]), states=change(states))


def test_steering_reads_the_images_and_the_emotion_space(tiny, states):
    model = copy.deepcopy(tiny)
    rng = torch.Generator().manual_seed(3)
    means = {name: torch.randn(9, 160, generator=rng) for name in MIKELS8[:3]}
    model.space = EmotionSpace({n: Gaussian(m, torch.ones(2, 9, 160)) for n, m in means.items()})
    aim = Affect(2.0, 1.0)
    found = EmoSymPipeline(model, batch_size=2).steer(SEEN, AFFECTS, aim)
    with torch.no_grad():
        known = {
            name: (mean, Affect(*tiny.understander.affect_head(mean[:1])[0].tolist()))
            for name, mean in means.items()
        }
    expected = steer(states, AFFECTS, aim, known)
    assert found.images == pytest.approx(expected.images)
    assert found.emotions == pytest.approx(expected.emotions)
    assert list(found.emotions) == list(means)
    assert torch.allclose(found.state, expected.state, atol=1e-4)


def test_steering_without_a_space_uses_the_images_alone(pipeline, states):
    found = pipeline.steer(SEEN, AFFECTS, Affect(2.0, 1.0))
    assert found.emotions == {}
    mix = torch.einsum("n,nkd->kd", torch.tensor(found.images), states)
    assert torch.allclose(found.state, mix, atol=1e-4)
    with pytest.raises(UserError, match="of each image; got 1 of 3 images"):
        pipeline.steer(SEEN, AFFECTS[:1], Affect(0.0, 0.0))
    with pytest.raises(UserError, match="got 0 of 0 images"):
        pipeline.steer([], [], Affect(0.0, 0.0))
