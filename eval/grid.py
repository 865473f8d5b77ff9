"""Pictures of pictures: the valence–arousal grid and the contact sheet."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from emosym.records import ImageRequest
from eval.protocols import Model

VALUES = (-3.0, -1.5, 0.0, 1.5, 3.0)
"""Grid points per axis, on `affect.PUBLIC`. Ref: arXiv 2501.05710 (EmotiCrafter) §4.2."""

CELL = 112
"""Side of a cell in pixels."""
GAP = 4
LEFT = 64
"""Room for the arousal labels."""
TOP = 28
"""Room for the title."""
BOTTOM = 44
"""Room for the valence labels."""
LINE = 18
"""Height of a line of text."""

PAPER, INK, PALE = "#ffffff", "#1f2328", "#656d76"


def affect_grid(
    model: Model,
    prompt: str,
    seed: int,
    *,
    values: Sequence[float] = VALUES,
    guidance: float | None = None,
    steps: int | None = None,
    cell: int = CELL,
) -> Image.Image:
    """Return a labelled grid of one prompt: valence grows to the right, arousal grows upwards.

    The noise is equal in all cells; only the affect asked for differs.
    """
    side = len(values)
    edge = side * cell + (side - 1) * GAP
    sheet = Image.new("RGB", (LEFT + edge + GAP, TOP + edge + BOTTOM), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((LEFT, TOP / 2), _fitted(prompt, edge, 14), INK, _font(14), anchor="lm")
    cells = [
        (row, column, ImageRequest(prompt=prompt, valence=valence, arousal=arousal))
        for row, arousal in enumerate(sorted(values, reverse=True))
        for column, valence in enumerate(sorted(values))
    ]
    images = model.generate(
        [request for _, _, request in cells],
        seed=[seed] * len(cells),
        guidance=guidance,
        steps=steps,
    )
    for (row, column, _), image in zip(cells, images, strict=True):
        sheet.paste(_square(image, cell), cell_origin(row, column, cell))
    for row, arousal in enumerate(sorted(values, reverse=True)):
        _, y = cell_origin(row, 0, cell)
        draw.text((LEFT - 8, y + cell / 2), _signed(arousal), INK, _font(13), anchor="rm")
    for column, valence in enumerate(sorted(values)):
        x, _ = cell_origin(0, column, cell)
        draw.text((x + cell / 2, TOP + edge + 12), _signed(valence), INK, _font(13), anchor="mm")
    draw.text((LEFT + edge / 2, TOP + edge + 30), "valence", PALE, _font(13), anchor="mm")
    name = Image.new("RGB", (edge, LINE), PAPER)
    ImageDraw.Draw(name).text((edge / 2, LINE / 2), "arousal", PALE, _font(13), anchor="mm")
    sheet.paste(name.rotate(90, expand=True), (2, TOP))
    return sheet


def cell_origin(row: int, column: int, cell: int = CELL) -> tuple[int, int]:
    """Return the upper left pixel of a grid cell; row 0 is the highest arousal."""
    return LEFT + column * (cell + GAP), TOP + row * (cell + GAP)


def affect_grids(
    model: Model,
    prompts: Sequence[str],
    seed: int,
    *,
    values: Sequence[float] = VALUES,
    guidance: float | None = None,
    steps: int | None = None,
    cell: int = CELL,
) -> Image.Image:
    """Return the grids of several prompts, one below the other."""
    grids = [
        affect_grid(model, prompt, seed, values=values, guidance=guidance, steps=steps, cell=cell)
        for prompt in prompts
    ]
    sheet = Image.new("RGB", (grids[0].width, sum(grid.height for grid in grids)), PAPER)
    for place, grid in enumerate(grids):
        sheet.paste(grid, (0, place * grid.height))
    return sheet


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    columns: int = 8,
    cell: int = CELL,
) -> Image.Image:
    """Return all images with their captions, wrapped to the cell, left to right, top down.

    Raises `ValueError` when there is no image or the captions are not as many as the images.
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


def caption(request: ImageRequest) -> str:
    """Return what was asked for, on one to three lines, for a contact sheet."""
    lines = [request.prompt, request.emotion or ""]
    if request.valence is not None and request.arousal is not None:
        lines.append(f"V {request.valence:+.1f}, A {request.arousal:+.1f}")
    return "\n".join(line for line in lines if line)


def _square(image: Image.Image, side: int) -> Image.Image:
    return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _signed(value: float) -> str:
    return f"{value:+g}" if value else "0"


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """Return the lines of `text`, broken between words (a word that is too long is cut)."""
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
    """Return the longest beginning of `text` that fits, with an ellipsis where it was cut."""
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
