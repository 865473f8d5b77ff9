"""Photographs are unlike drawings; other drawings are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from emosym.errors import UserError
from emosym.models.training_images import FEWEST, TrainingImages
from emosym.pictures.appearance import SIZE, appearance
from emosym.pictures.loading import load_image


def flat(levels) -> Image.Image:
    return Image.fromarray(np.broadcast_to(np.uint8(levels), (64, 64, 3)).copy())


def smooth(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC)


def test_the_appearance_of_one_colour_by_hand():
    numbers = appearance(flat((255, 0, 102)))
    assert numbers.shape == (SIZE,)
    luma = 0.299 + 0.114 * 0.4
    # The first coefficient of an 8 x 8 block is 8 times its level; all others are 0.
    assert numbers[0] == pytest.approx(np.log(8 * luma + 1e-4))
    assert numbers[1:15] == pytest.approx(np.log(1e-4), abs=1e-6)
    assert numbers[15:30] == pytest.approx(0, abs=1e-6)
    assert numbers[30] == pytest.approx(np.log(8 * abs(0.4 - luma) + 1e-4))
    assert numbers[-6:] == pytest.approx([1, 0, 0.4, 0, 0, 0], abs=1e-9)


def test_images_of_the_same_kind_are_alike_and_others_are_not():
    known = TrainingImages.fit(smooth(seed) for seed in range(400))
    again = TrainingImages.from_state_dict(known.state_dict())
    held_out = [again.unlike(smooth(seed)) for seed in range(1000, 1400)]
    assert np.mean(held_out) <= 0.02
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert again.unlike(Image.fromarray(noise))
    assert again.unlike(flat(128))
    assert [known.unlike(smooth(seed)) for seed in range(1000, 1400)] == held_out


def test_the_squared_distance_is_the_slow_one():
    images = [smooth(seed) for seed in range(120)]
    known = TrainingImages.fit(images)
    rows = np.array([appearance(image) for image in images])
    scaled = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    shrunk = 0.9 * np.cov(scaled.T) + 0.1 * np.eye(SIZE)
    slow = [row @ np.linalg.solve(shrunk, row) / SIZE for row in scaled]
    assert [known._distance(row) for row in rows] == pytest.approx(slow)
    assert known.largest == pytest.approx(1.25 * np.quantile(slow, 0.99))


def test_few_images_say_nothing():
    assert TrainingImages.fit(smooth(seed) for seed in range(FEWEST - 1)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("mean"),
        lambda state: state.update(more=torch.zeros(1)),
        lambda state: state.update(mean=torch.zeros(3)),
        lambda state: state["largest"].fill_(float("nan")),
    ],
)
def test_other_tensors_are_refused(change):
    state = TrainingImages.fit(smooth(seed) for seed in range(FEWEST)).state_dict()
    change(state)
    with pytest.raises(UserError, match="statistics of the training images do not fit"):
        TrainingImages.from_state_dict(state)


def test_the_shipped_model_knows_a_photograph_from_a_drawing(shared):
    """At most 2 % of newly drawn images are called unlike, at least 95 % of photographs."""
    import safetensors.torch

    from data_tools.affectworld.world import draw_world
    from model_zoo import catalogue, zoo

    path = catalogue.folder_of("emosym-tiny") / zoo.TRAINING_IMAGES
    known = TrainingImages.from_state_dict(safetensors.torch.load_file(path))
    photographs = sorted((shared / "oasis" / "images").glob("*.jpg"))[::6]
    assert np.mean([known.unlike(load_image(one)) for one in photographs]) >= 0.95
    drawn = [known.unlike(load_image(one.jpeg)) for one in draw_world(300, seed=4321)]
    assert np.mean(drawn) <= 0.02
