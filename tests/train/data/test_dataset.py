"""Views of training images: where a crop lies, and that something is left of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emosym.records import Sample
from train.config import DataConfig
from train.data.dataset import TrainingSet


def views(path: Path, rows: list[list[float]], **config) -> list[np.ndarray]:
    sample = Sample(id="a", image=path, split="train")
    training_set = TrainingSet([sample], [], DataConfig(**config), 0)
    found = training_set.views([sample] * len(rows), torch.tensor(rows))
    return [np.asarray(view) for view in found]


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1), (2, 3)])
def test_a_crop_keeps_a_pixel_of_the_narrowest_image(tmp_path, size):
    path = tmp_path / "a.png"
    Image.new("RGB", size, (9, 8, 7)).save(path)
    corners = [[0.9, *row] for row in product((0.0, 0.3, 0.999), repeat=3)]
    for crop in (0.01, 0.4, 0.5):
        for view in views(path, corners, crop=crop):
            assert view.size > 0
            assert (view == (9, 8, 7)).all()  # Pillow fills what lies outside with black


def test_a_transparent_image_is_trained_on_white(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(path)
    (view,) = views(path, [[0.9, 0, 0, 0]])
    assert (view == (255, 255, 255)).all()


def test_a_crop_by_hand(tmp_path):
    """Half of 4 x 8 numbered pixels, from the top left and the bottom right; then mirrored."""
    path, numbers = tmp_path / "a.png", np.arange(32, dtype=np.uint8).reshape(8, 4)
    Image.fromarray(np.stack([numbers] * 3, 2)).save(path)
    first, last = views(path, [[0.9, 0, 0, 0], [0.9, 0, 0.99, 0.99]], crop=0.5)
    assert first[..., 0].tolist() == numbers[:4, :2].tolist()
    assert last[..., 0].tolist() == numbers[4:, 2:].tolist()
    (mirrored,) = views(path, [[0.1, 0, 0, 0]], crop=0.5, flip=True)
    assert mirrored[..., 0].tolist() == numbers[:4, 1::-1].tolist()
    (whole,) = views(path, [[0.1, 0, 0, 0]])
    assert whole[..., 0].tolist() == numbers.tolist()
