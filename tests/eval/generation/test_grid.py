from __future__ import annotations

import numpy as np

from emosym.inference import sheets
from eval.generation import grid
from tests.eval.painter import Painter, colour


def test_every_cell_shows_its_own_affect() -> None:
    sheet = grid.affect_grid(Painter(), "a boat", seed=3)
    for row, arousal in enumerate((3, 1.5, 0, -1.5, -3)):
        for column, valence in enumerate((-3, -1.5, 0, 1.5, 3)):
            x, y = sheets.cell_origin(row, column)
            cell = sheet.crop((x, y, x + sheets.CELL, y + sheets.CELL))
            assert cell.getcolors() == [(sheets.CELL**2, colour(valence, arousal))]


def test_the_noise_is_equal_in_all_cells() -> None:
    model = Painter(noise=True)
    sheet = grid.affect_grid(model, "a boat", seed=3)
    assert model.seeds == [3] * 25
    corners = [sheets.cell_origin(row, column) for row in (0, 4) for column in (0, 4)]
    assert len({sheet.getpixel(corner)[2] for corner in corners}) == 1


def test_axes_are_labelled_outside_the_cells() -> None:
    sheet = grid.affect_grid(Painter(), "a boat", seed=0)
    right, bottom = (edge + sheets.CELL for edge in sheets.cell_origin(4, 4))
    for margin in (
        (0, sheets.TOP, sheets.LEFT, bottom),
        (sheets.LEFT, bottom, right, sheet.height),
        (sheets.LEFT, 0, right, sheets.TOP),
    ):
        assert np.asarray(sheet.crop(margin)).min() < 100, "there is ink"
    assert sheet.width == right + sheets.GAP
    assert sheet.height == bottom + sheets.BOTTOM
