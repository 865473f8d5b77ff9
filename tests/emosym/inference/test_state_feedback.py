"""Refinement through the state: in a linear world by hand, and with the real model."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.inference.refine import LARGER, refine
from emosym.models.emotion_space import EmotionSpace, Gaussian
from emosym.models.steering import SteeredState, steer
from emosym.records import ImageRequest, Question, Understanding

REQUEST = ImageRequest(prompt="a cat in the rain", affect=Affect(1.0, -1.0))
CORNERS = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
BRIGHT = "<answer>Suggestions: bright</answer>"
REWRITTEN = "a cat in the rain, in bright light"


class World:
    """A generator and a critic of a linear world, where an image is the number of its drawing.

    The states' first two numbers are valence and arousal. An image evokes `offset` + `gain` times
    what is felt in its state, and with its seed one of four `spread` corners around that.
    """

    def __init__(
        self,
        gain: float,
        offset: tuple[float, float],
        spread: float = 1.0,
        words: Sequence[str] = (),
    ) -> None:
        self.gain, self.offset, self.spread = gain, np.array(offset), spread
        self.words = list(words)
        self.evoked: list[Affect] = []
        self.asked: list[tuple[str, int, Tensor | None]] = []

    def check_prompt(self, prompt: str) -> None:
        pass

    def generate(
        self,
        requests: Sequence[ImageRequest],
        *,
        seed: int,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        states: Tensor | None = None,
    ) -> list[Image.Image]:
        (request,) = requests
        self.asked.append((request.prompt, seed, states))
        felt = np.array(request.affect.coordinates)
        if states is not None:
            assert states.shape == (1, 2, 3)
            felt = states[0, 0, :2].numpy()
        point = self.offset + self.gain * felt + self.spread * CORNERS[seed % 4]
        self.evoked.append(Affect.unchecked(*point.tolist()))
        return [Image.new("I", (1, 1), len(self.evoked) - 1)]

    def steer(
        self, images: Sequence[Image.Image], affects: Sequence[Affect], aim: Affect
    ) -> SteeredState:
        points = torch.tensor([self.affect(image).coordinates for image in images])
        states = torch.cat([points, torch.ones(len(points), 1)], 1)[:, None].expand(-1, 2, -1)
        return steer(states.double(), affects, aim)

    def affect(self, image: Image.Image) -> Affect:
        return self.evoked[image.getpixel((0, 0))]

    def understand(
        self, images: Sequence[Image.Image], *, answer: bool = True
    ) -> list[Understanding]:
        return [
            Understanding(
                emotion="awe",
                probabilities=dict.fromkeys(MIKELS8, 1 / 8),
                affect=self.affect(image),
                text="",
            )
            for image in images
        ]

    def answer(self, questions: Sequence[Question], *, max_tokens: int | None = None) -> list[str]:
        return [self.words.pop(0)]


def misses(found) -> np.ndarray:
    """Return what the mean of each round's images lacks, [rounds, 2]."""
    return np.array([1.0, -1.0]) - [one.mean_affect.coordinates for one in found.rounds]


@pytest.mark.parametrize("gain", [0.25, 0.5, 1.0])
def test_in_a_linear_world_the_miss_shrinks_by_the_gain(gain):
    """A state moves by as much as is lacking, and the images by `gain` times that.

    So each round leaves 1 - gain of the miss. The ridge, 0.1 beside squares of 4 · 4, holds back
    0.1 / 16.1 of a step.
    """
    target = np.array([1.0, -1.0])
    offset = (1 - gain) * target + [0.4, -0.8]
    world = World(gain, tuple(offset), spread=2.0)
    found = refine(world, world, REQUEST, feedback="state", rounds=6, images=4, epsilon=0)
    assert misses(found)[0] == pytest.approx([-0.4, 0.8]), "of the request's own state"
    shrunk = misses(found) / misses(found)[0]
    for number, share in enumerate(shrunk):
        assert share == pytest.approx([(1 - gain) ** number] * 2, abs=0.03)
    assert all(one.kept is None for one in found.rounds)


def test_two_rounds_by_hand():
    """Four images at ±1 around (2, -1): squares of 4, so the step has 4 / 4.1 of its length.

    Valence 1 is wanted and 2 reached: the state aims at 1 + 1 - 2 = 0, two below the images' mean.
    """
    world = World(0.5, (1.5, -0.5))
    found = refine(world, world, REQUEST, feedback="state", rounds=2, images=4, epsilon=0, seed=8)
    first, second = found.rounds
    assert first.state is None
    assert first.mean_affect.coordinates == pytest.approx((2.0, -1.0))
    assert second.state.images == pytest.approx(
        {8: 0.25 + 2 / 4.1, 9: 0.25 + 2 / 4.1, 10: 0.25 - 2 / 4.1, 11: 0.25 - 2 / 4.1}
    )
    valence = 2 - 2 * 4 / 4.1
    assert second.state.affect.coordinates == pytest.approx((valence, -1.0))
    assert [states is None for _, _, states in world.asked] == [True] * 4 + [False] * 4
    for _, _, states in world.asked[4:]:
        assert states[0].numpy() == pytest.approx(np.array([[valence, -1.0, 1.0]] * 2))
    assert second.mean_affect.coordinates == pytest.approx((1.5 + valence / 2, -1.0))
    assert {prompt for prompt, _, _ in world.asked} == {REQUEST.prompt}


def test_where_nothing_lacks_the_state_rests():
    world = World(0.7, (0.3, -0.3))
    found = refine(world, world, REQUEST, feedback="state", rounds=3, images=4, epsilon=0)
    for one in found.rounds[1:]:
        assert one.state.affect.coordinates == pytest.approx((1.0, -1.0))
        assert list(one.state.images.values()) == pytest.approx([0.25] * 4)


def test_the_state_aims_at_no_affect_beyond_the_scale():
    world = World(0.0, (-2.0, 0.0), spread=2.0)
    request = ImageRequest(affect=Affect(3.0, 0.0))
    found = refine(world, world, request, feedback="state", rounds=2, images=4, epsilon=0)
    valence = found.rounds[1].state.affect.valence
    assert valence == pytest.approx(-2 + 5 * 16 / 16.1), "3 + 3 - (-2) is cut to 3"


def test_a_state_with_a_larger_mean_error_is_given_up():
    """The decoder does the opposite: the second round is farther away, the third starts anew."""
    world = World(-1.0, (1.0, 1.0), spread=0.5)
    found = refine(world, world, REQUEST, feedback="state", rounds=4, images=4, epsilon=0)
    first, second, third, fourth = found.rounds
    assert second.mean_error > first.mean_error
    assert (first.kept, second.kept) == (None, LARGER["state"])
    assert third.state is None
    assert third.mean_affect == first.mean_affect
    assert third.kept is None
    assert [*fourth.state.images] == [8, 9, 10, 11], "mixed of the third round's images"


def test_both_change_and_are_given_up_together():
    world = World(-1.0, (1.0, 1.0), spread=0.25, words=[BRIGHT, f"<answer>{REWRITTEN}</answer>"])
    found = refine(world, world, REQUEST, feedback="both", rounds=3, images=4, epsilon=0)
    first, second, third = found.rounds
    assert (first.kept, second.kept) == (None, LARGER["both"])
    assert (second.prompt, second.state is None) == (REWRITTEN, False)
    assert (third.prompt, third.state) == (REQUEST.prompt, None)


def test_a_state_moves_although_the_prompt_is_kept():
    """The images lie on both sides: nobody is asked for words, but their mean is off."""
    world = World(0.5, (0.9, -0.5), spread=1.0)
    found = refine(world, world, REQUEST, feedback="both", rounds=3, images=4, epsilon=0)
    kept = "the images lie on both sides of the request"
    assert [one.kept for one in found.rounds] == [kept, kept, None]
    assert {one.prompt for one in found.rounds} == {REQUEST.prompt}
    assert np.abs(misses(found)[:, 0]) == pytest.approx([0.4, 0.2, 0.1], abs=0.02)
    # A state that fails is given up, too, though the prompt before it was kept.
    world = World(-1.0, (2.6, -2.0), spread=1.0)
    found = refine(world, world, REQUEST, feedback="both", rounds=3, images=4, epsilon=0)
    assert [one.kept for one in found.rounds] == [kept, LARGER["both"], None]
    assert found.rounds[2].state is None


def test_the_mix_is_plain_data_that_adds_up():
    world = World(0.5, (1.5, -0.5))
    found = refine(world, world, REQUEST, feedback="state", rounds=3, images=4, epsilon=0, seed=8)
    trace = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    first, second, third = trace["rounds"]
    assert first["state"] is None
    for one, source in ((second, first), (third, second)):
        assert set(one["state"]) == {"images", "emotions", "valence", "arousal"}
        weights = one["state"]["images"]
        assert sum(weights.values()) == pytest.approx(1)
        drawn = {str(drawing["seed"]): drawing for drawing in source["drawings"]}
        for axis in ("valence", "arousal"):
            mixed = sum(weight * drawn[seed][axis] for seed, weight in weights.items())
            assert mixed == pytest.approx(one["state"][axis])


# --- bad input


def test_bad_input_is_an_error_before_any_image():
    world = World(0.5, (0.0, 0.0))
    with pytest.raises(UserError, match=r"unknown feedback 'states'.*did you mean 'state'\?"):
        refine(world, world, REQUEST, feedback="states")
    for feedback in ("words", "both"):
        with pytest.raises(UserError, match="there is no prompt to rewrite"):
            refine(world, world, ImageRequest(affect=Affect(0.0, 0.0)), feedback=feedback)

    class Other:
        """Generates, but takes no states."""

        check_prompt, generate = world.check_prompt, world.generate

    for feedback in ("state", "both"):
        with pytest.raises(UserError, match="needs a generator that takes states; got Other"):
            refine(Other(), world, REQUEST, feedback=feedback)
    assert world.asked == []
    refine(Other(), world, REQUEST, rounds=1)
    assert len(world.asked) == 8


# --- the real model


def test_the_trace_of_a_real_model_draws_its_images_again(tiny):
    """The recorded weights, applied to the images and the emotion space, are the state."""
    model = copy.deepcopy(tiny)
    rng = torch.Generator().manual_seed(3)
    shape = (1 + model.config.reasoning_tokens, 160)
    model.space = EmotionSpace(
        {n: Gaussian(torch.randn(shape, generator=rng), torch.ones(2, *shape)) for n in MIKELS8}
    )
    pipeline = EmoSymPipeline(model)
    request = ImageRequest(prompt="a boat at sea", affect=Affect(-1.0, 2.0))
    images: dict[int, Image.Image] = {}
    found = refine(
        pipeline,
        pipeline,
        request,
        feedback="state",
        rounds=2,
        images=2,
        seed=5,
        num_inference_steps=2,
        epsilon=0,
        show=lambda _words, _state, one, image: images.update({one.seed: image}),
    )
    mix = json.loads(json.dumps(found.to_dict()))["rounds"][1]["state"]
    assert [*mix["images"]] == ["5", "6"]
    assert [*mix["emotions"]] == list(MIKELS8)
    read = {s: pipeline.steer([i], [Affect(0, 0)], Affect(0, 0)).state for s, i in images.items()}
    state = sum(weight * read[int(seed)] for seed, weight in mix["images"].items())
    for name, weight in mix["emotions"].items():
        state = state + weight * model.space.gaussians[name].mean
    for seed in (7, 8):
        options = {"seed": seed, "num_inference_steps": 2}
        (again,) = pipeline.generate([request], states=state[None], **options)
        (without,) = pipeline.generate([request], **options)
        difference = np.abs(np.asarray(again, int) - np.asarray(images[seed], int))
        assert difference.max() <= 2
        assert np.abs(np.asarray(without, int) - np.asarray(images[seed], int)).max() > 5


def test_a_judge_without_states_can_judge(tiny):
    """Its numbers count; the states are those that the generator reads."""
    pipeline = EmoSymPipeline(tiny)
    judge = World(0.0, (0.0, 0.0))
    judge.affect = lambda image: Affect(picture_mean(image), 0.0)
    found = refine(
        *(pipeline, judge, REQUEST),
        feedback="state",
        rounds=2,
        images=2,
        num_inference_steps=1,
        epsilon=0,
    )
    assert found.rounds[1].state is not None
    assert found.rounds[0].mean_affect.arousal == 0.0


def picture_mean(image: Image.Image) -> float:
    return float(np.asarray(image).mean()) / 256
