"""Sheets of images: labelled grids along valence and arousal, and contact sheets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from emosym.pictures.loading import load_image
from emosym.records import ImageRequest

CELL = 112
"""Side of a cell in pixels."""
GAP = 4
LEFT = 64
"""Width in pixels of the labels of the vertical axis."""
TOP = 28
"""Height of the title."""
BOTTOM = 44
"""Height of the labels of the horizontal axis."""
LINE = 18
"""Height of a line of text."""

_MARK = "emosym-sheet"
"""Keyword of a PNG text chunk before the pixels."""
PAPER, INK, PALE = "#ffffff", "#1f2328", "#656d76"

Labels = tuple[str, Sequence[float]]
"""The name of an axis and its values, ascending."""


def affect_sheet(
    images: Sequence[Image.Image], title: str, across: Labels, up: Labels, *, cell: int = CELL
) -> Image.Image:
    """Return a labelled sheet: the axis `across` grows to the right, the axis `up` upwards.

    With one value of `up` it is a strip. `images` are ordered by row from the lowest one, each row
    from left to right. Raises `ValueError` if there are more or fewer images than cells.
    """
    (across_name, columns), (up_name, rows) = across, up
    if len(images) != len(columns) * len(rows):
        raise ValueError(f"{len(images)} images for {len(rows)} x {len(columns)} cells")
    width, height = (count * cell + (count - 1) * GAP for count in (len(columns), len(rows)))
    sheet = Image.new("RGB", (LEFT + width + GAP, TOP + height + BOTTOM), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((LEFT, TOP / 2), _fitted(title, width, 14), INK, _font(14), anchor="lm")
    for place, image in enumerate(images):
        row, column = divmod(place, len(columns))
        sheet.paste(_square(image, cell), cell_origin(len(rows) - 1 - row, column, cell))
    for row, value in enumerate(reversed(rows)):
        _, y = cell_origin(row, 0, cell)
        draw.text((LEFT - 8, y + cell / 2), _signed(value), INK, _font(13), anchor="rm")
    for column, value in enumerate(columns):
        x, _ = cell_origin(0, column, cell)
        draw.text((x + cell / 2, TOP + height + 12), _signed(value), INK, _font(13), anchor="mm")
    draw.text((LEFT + width / 2, TOP + height + 30), across_name, PALE, _font(13), anchor="mm")
    name = Image.new("RGB", (height, LINE), PAPER)
    ImageDraw.Draw(name).text((height / 2, LINE / 2), up_name, PALE, _font(13), anchor="mm")
    sheet.paste(name.rotate(90, expand=True), (2, TOP))
    return sheet


def cell_origin(row: int, column: int, cell: int = CELL) -> tuple[int, int]:
    """Return the upper left pixel of a cell of an affect sheet; row 0 is the topmost."""
    return LEFT + column * (cell + GAP), TOP + row * (cell + GAP)


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Return sheets stacked vertically; raise `ValueError` for none."""
    if not sheets:
        raise ValueError("no sheet to stack")
    whole = Image.new(
        "RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), PAPER
    )
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    columns: int = 8,
    cell: int = CELL,
) -> Image.Image:
    """Return all images with their captions, from left to right and top to bottom.

    Captions are wrapped to the width of a cell. Raises `ValueError` for no images, or if there are
    more or fewer captions than images.
    """
    if not images or len(images) != len(captions):
        raise ValueError(f"{len(images)} images with {len(captions)} captions")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    texts = [_wrapped(caption, cell, 12) for caption in captions]
    width, height = cell + 2 * GAP, cell + 3 * GAP + max(map(len, texts)) * LINE
    sheet = Image.new("RGB", (columns * width, rows * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (image, lines) in enumerate(zip(images, texts, strict=True)):
        x, y = place % columns * width + GAP, place // columns * height + GAP
        sheet.paste(_square(image, cell), (x, y))
        for number, line in enumerate(lines):
            middle = y + cell + GAP + (number + 0.5) * LINE
            draw.text((x, middle), line, INK, _font(12), anchor="lm")
    return sheet


def sheet_png(sheet: Image.Image) -> bytes:
    """Return a PNG file that is marked as a sheet; see `is_sheet`."""
    about = PngInfo()
    about.add_text(_MARK, "sheet of images")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def is_sheet(path: Path) -> bool:
    """Return whether a file is a sheet that `sheet_png` made; False for a file that is no image."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return _MARK in image.info
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def caption(request: ImageRequest) -> str:
    """Return a request as a caption of one to three lines."""
    lines = [request.prompt, request.emotion or ""]
    if request.affect is not None:
        lines.append(f"V {request.affect.valence:+.1f}, A {request.affect.arousal:+.1f}")
    return "\n".join(line for line in lines if line)


def _square(image: Image.Image, side: int) -> Image.Image:
    return load_image(image).resize((side, side), Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _signed(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """Return the lines of `text`, wrapped between words; a word that is too long is cut."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".lstrip()
            if line and _font(size).getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return [_fitted(line, width, size) for line in lines]


def _fitted(text: str, width: int, size: int) -> str:
    """Return the longest prefix of `text` that fits, with an ellipsis if it was cut."""
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
