from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageChops

from emosym.records import ImageRequest
from eval import grid
from tests.eval.painter import Painter, colour


def test_every_cell_shows_its_own_affect() -> None:
    sheet = grid.affect_grid(Painter(), "a boat", seed=3)
    for row, arousal in enumerate((3, 1.5, 0, -1.5, -3)):
        for column, valence in enumerate((-3, -1.5, 0, 1.5, 3)):
            x, y = grid.cell_origin(row, column)
            cell = sheet.crop((x, y, x + grid.CELL, y + grid.CELL))
            assert cell.getcolors() == [(grid.CELL**2, colour(valence, arousal))]


def test_the_noise_is_equal_in_all_cells() -> None:
    model = Painter(noise=True)
    sheet = grid.affect_grid(model, "a boat", seed=3)
    assert model.seeds == [3] * 25
    corners = [grid.cell_origin(row, column) for row in (0, 4) for column in (0, 4)]
    assert len({sheet.getpixel(corner)[2] for corner in corners}) == 1


def test_axes_are_labelled_outside_the_cells() -> None:
    sheet = grid.affect_grid(Painter(), "a boat", seed=0)
    right, bottom = (edge + grid.CELL for edge in grid.cell_origin(4, 4))
    for margin in (
        (0, grid.TOP, grid.LEFT, bottom),
        (grid.LEFT, bottom, right, sheet.height),
        (grid.LEFT, 0, right, grid.TOP),
    ):
        assert np.asarray(sheet.crop(margin)).min() < 100, "there is ink"
    assert sheet.width == right + grid.GAP
    assert sheet.height == bottom + grid.BOTTOM


def test_several_prompts_are_stacked() -> None:
    one = grid.affect_grid(Painter(), "a boat", seed=0)
    both = grid.affect_grids(Painter(), ["a boat", "a hut"], seed=0)
    assert both.size == (one.width, 2 * one.height)
    upper = both.crop((0, 0, one.width, one.height))
    lower = both.crop((0, one.height, one.width, 2 * one.height))
    assert ImageChops.difference(upper, one).getbbox() is None
    changed = ImageChops.difference(lower, one).getbbox()
    assert changed is not None, "another title"
    assert changed[3] <= grid.TOP, "and nothing else"


def test_contact_sheet_reads_left_to_right() -> None:
    shades = [Image.new("RGB", (8, 8), (shade, shade, shade)) for shade in (10, 20, 30, 40, 50)]
    sheet = grid.contact_sheet(shades, ["x"] * 5, columns=3, cell=40)
    width, height = sheet.width // 3, sheet.height // 2
    found = [
        sheet.getpixel((column * width + width // 2, row * height + 20))[0]
        for row in range(2)
        for column in range(3)
    ]
    assert found == [10, 20, 30, 40, 50, 255]


def test_a_long_caption_stays_in_its_column() -> None:
    images = [Image.new("RGB", (8, 8))] * 2
    long, short = "a very long prompt about a small boat on a big lake", ""
    sheet = grid.contact_sheet(images, [long, short], cell=80)
    pixels = np.asarray(sheet)[80 + 2 * grid.GAP :]
    assert (pixels[:, sheet.width // 2 :] == 255).all()
    inked = (pixels[: -grid.GAP] < 100).any(axis=(1, 2))
    lines = np.split(inked, len(inked) // grid.LINE)
    assert len(lines) > 3, "it is wrapped, not cut"
    assert all(line.any() for line in lines)
    with pytest.raises(ValueError, match="2 images with 1 captions"):
        grid.contact_sheet(images, [long])


def test_caption_says_what_was_asked() -> None:
    assert grid.caption(ImageRequest(prompt="a boat", emotion="awe", valence=1, arousal=-2)) == (
        "a boat\nawe\nV +1.0, A -2.0"
    )
    assert grid.caption(ImageRequest(emotion="awe")) == "awe"
