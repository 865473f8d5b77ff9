from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageChops

from emosym.affect.scales import Affect
from emosym.inference import sheets
from emosym.records import ImageRequest

VALUES = (-3.0, 0.0, 3.0)


def grey(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), (10 * shade,) * 3) for shade in range(1, count + 1)]


def shade_at(sheet: Image.Image, row: int, column: int) -> int:
    x, y = sheets.cell_origin(row, column)
    ((count, colour),) = sheet.crop((x, y, x + sheets.CELL, y + sheets.CELL)).getcolors()
    assert count == sheets.CELL**2, "the cell is filled, and no label lies over it"
    return colour[0]


def test_rows_rise_and_columns_run_right() -> None:
    sheet = sheets.affect_sheet(grey(6), "a boat", ("valence", VALUES), ("arousal", (-3.0, 3.0)))
    seen = [[shade_at(sheet, row, column) for column in range(3)] for row in range(2)]
    assert seen == [[40, 50, 60], [10, 20, 30]], "the lowest row comes first and lies lowest"


def test_a_strip_is_one_row() -> None:
    sheet = sheets.affect_sheet(grey(3), "a boat", ("arousal", VALUES), ("valence", (1.5,)))
    assert [shade_at(sheet, 0, column) for column in range(3)] == [10, 20, 30]
    right, bottom = (edge + sheets.CELL for edge in sheets.cell_origin(0, 2))
    assert sheet.size == (right + sheets.GAP, bottom + sheets.BOTTOM)
    for margin in (
        (0, sheets.TOP, sheets.LEFT, bottom),
        (sheets.LEFT, bottom, right, sheet.height),
        (sheets.LEFT, 0, right, sheets.TOP),
    ):
        assert np.asarray(sheet.crop(margin)).min() < 100, "there is ink"


def test_every_cell_has_an_image() -> None:
    with pytest.raises(ValueError, match="5 images for 2 x 3 cells"):
        sheets.affect_sheet(grey(5), "", ("valence", VALUES), ("arousal", (-3.0, 3.0)))


def test_sheets_are_stacked() -> None:
    strips = [
        sheets.affect_sheet(grey(count), "x", ("valence", VALUES[:count]), ("arousal", (0.0,)))
        for count in (3, 2)
    ]
    whole = sheets.stacked(strips)
    assert whole.size == (strips[0].width, 2 * strips[0].height)
    for strip, top in zip(strips, (0, strips[0].height), strict=True):
        part = whole.crop((0, top, strip.width, top + strip.height))
        assert ImageChops.difference(part, strip).getbbox() is None
    with pytest.raises(ValueError, match="no sheet"):
        sheets.stacked([])


def test_contact_sheet_reads_left_to_right() -> None:
    shades = [Image.new("RGB", (8, 8), (shade, shade, shade)) for shade in (10, 20, 30, 40, 50)]
    sheet = sheets.contact_sheet(shades, ["x"] * 5, columns=3, cell=40)
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
    sheet = sheets.contact_sheet(images, [long, short], cell=80)
    pixels = np.asarray(sheet)[80 + 2 * sheets.GAP :]
    assert (pixels[:, sheet.width // 2 :] == 255).all()
    inked = (pixels[: -sheets.GAP] < 100).any(axis=(1, 2))
    lines = np.split(inked, len(inked) // sheets.LINE)
    assert len(lines) > 3, "it is wrapped, not cut"
    assert all(line.any() for line in lines)
    with pytest.raises(ValueError, match="2 images with 1 captions"):
        sheets.contact_sheet(images, [long])


def test_a_caption_holds_the_request() -> None:
    assert sheets.caption(ImageRequest(prompt="a boat", emotion="awe", affect=Affect(1, -2))) == (
        "a boat\nawe\nV +1.0, A -2.0"
    )
    assert sheets.caption(ImageRequest(emotion="awe")) == "awe"
