"""Drawing a scene with Pillow, and adjusting the image to a brightness and a saturation."""

from __future__ import annotations

import colorsys
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from data_tools.affectworld.scene import SIZES, Scene
from data_tools.affectworld.shapes import SILHOUETTES, Shape

OVERSAMPLING = 4
"""Factor of the size at which an image is drawn before it is averaged down (anti-aliasing)."""
OUTLINE = 0.022
"""Width of a subject's outline as a fraction of the image's side."""
HORIZON = 0.6
"""Height of the desert's horizon as a fraction of the image's side, from the top."""

RGB = tuple[int, int, int]


def _rgb(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def render(scene: Scene, size: int = 64) -> Image.Image:
    """Return the RGB image of a scene, `size` x `size` pixels."""
    return relight(paint(scene, size), scene.brightness, scene.saturation)


def paint(scene: Scene, size: int) -> Image.Image:
    """Return the scene before `relight`: mid-toned background, bright outlined subject."""
    rng = random.Random(scene.seed)
    large = size * OVERSAMPLING
    image = Image.new("RGB", (large, large), _rgb(scene.hue, 0.5, 0.72))
    draw = ImageDraw.Draw(image)
    ground_hue = scene.hue + rng.choice((-0.08, 0.08))
    _SETTINGS[scene.setting](draw, large, rng, scene.hue, ground_hue)
    _WEATHERS[scene.weather](draw, large, rng, scene.hue)
    _subject(draw, large, rng, scene)
    return image.reduce(OVERSAMPLING)


def _band(draw: ImageDraw.ImageDraw, size: int, top: float, colour: RGB) -> None:
    draw.rectangle((0, top * size, size, size), fill=colour)


def _disc(draw: ImageDraw.ImageDraw, size: int, x: float, y: float, r: float, colour: RGB) -> None:
    draw.ellipse(((x - r) * size, (y - r) * size, (x + r) * size, (y + r) * size), fill=colour)


def _city(
    draw: ImageDraw.ImageDraw, size: int, rng: random.Random, sky: float, ground: float
) -> None:
    left = -0.05
    while left < 1.0:
        width = rng.uniform(0.13, 0.2)
        top = rng.uniform(0.12, 0.45)
        wall = _rgb(ground, 0.55, rng.uniform(0.42, 0.55))
        draw.rectangle((left * size, top * size, (left + width) * size, size), fill=wall)
        for row in range(3):
            y = top + 0.06 + 0.1 * row
            for x in (left + width * 0.25, left + width * 0.65):
                box = (x * size, y * size, (x + 0.03) * size, (y + 0.05) * size)
                draw.rectangle(box, fill=_rgb(sky, 0.35, 0.8))
        left += width + 0.01
    _band(draw, size, 0.8, _rgb(ground, 0.45, 0.36))


def _desert(
    draw: ImageDraw.ImageDraw, size: int, rng: random.Random, sky: float, ground: float
) -> None:
    _disc(draw, size, rng.choice((0.2, 0.8)), 0.2, 0.13, _rgb(ground, 0.35, 0.92))
    _band(draw, size, HORIZON, _rgb(ground, 0.6, 0.62))
    for y in (0.72, 0.86):
        x = rng.uniform(-0.3, 0.3)
        box = (x * size, y * size, (x + 1.0) * size, (y + 0.5) * size)
        draw.ellipse(box, fill=_rgb(ground, 0.62, 0.62 - 0.6 * (y - 0.6)))


def _forest(
    draw: ImageDraw.ImageDraw, size: int, rng: random.Random, sky: float, ground: float
) -> None:
    _band(draw, size, 0.75, _rgb(ground, 0.55, 0.5))
    for column in range(5):
        x = (column + rng.uniform(0.2, 0.8)) / 5
        trunk = _rgb(ground, 0.5, rng.uniform(0.34, 0.44))
        draw.rectangle(((x - 0.04) * size, 0, (x + 0.04) * size, 0.8 * size), fill=trunk)
    for column in range(6):
        x = (column + rng.uniform(0.1, 0.9)) / 6
        _disc(draw, size, x, rng.uniform(-0.02, 0.06), 0.15, _rgb(ground, 0.6, 0.55))


def _hills(
    draw: ImageDraw.ImageDraw, size: int, rng: random.Random, sky: float, ground: float
) -> None:
    shift = rng.uniform(-0.15, 0.15)
    for x, top, value in ((0.15, 0.42, 0.48), (0.85, 0.5, 0.54), (0.45, 0.7, 0.6)):
        left, right = x + shift - 0.55, x + shift + 0.55
        box = (left * size, top * size, right * size, (top + 1.0) * size)
        draw.ellipse(box, fill=_rgb(ground, 0.6, value))


def _mountains(
    draw: ImageDraw.ImageDraw, size: int, rng: random.Random, sky: float, ground: float
) -> None:
    shift = rng.uniform(-0.1, 0.1)
    for x, top, half, value in ((0.2, 0.18, 0.42, 0.46), (0.8, 0.1, 0.45, 0.52)):
        x += shift
        peak = [(x, top), (x - half, 0.8), (x + half, 0.8)]
        cap = [(x, top), (x - half * 0.3, top + 0.2), (x + half * 0.3, top + 0.2)]
        draw.polygon([(px * size, py * size) for px, py in peak], fill=_rgb(ground, 0.5, value))
        draw.polygon([(px * size, py * size) for px, py in cap], fill=_rgb(sky, 0.15, 0.92))
    _band(draw, size, 0.76, _rgb(ground, 0.55, 0.6))


def _sea(
    draw: ImageDraw.ImageDraw, size: int, rng: random.Random, sky: float, ground: float
) -> None:
    _band(draw, size, 0.5, _rgb(ground, 0.65, 0.5))
    for row, y in enumerate((0.56, 0.68, 0.8, 0.92)):
        x = -0.2 + 0.12 * (row % 2) + rng.uniform(-0.05, 0.05)
        while x < 1.0:
            box = (x * size, y * size, (x + 0.22) * size, (y + 0.12) * size)
            draw.arc(box, 200, 340, fill=_rgb(sky, 0.35, 0.78), width=max(1, round(0.025 * size)))
            x += 0.24


_SETTINGS: dict[str, Callable[..., None]] = {
    "city": _city,
    "desert": _desert,
    "forest": _forest,
    "hills": _hills,
    "mountains": _mountains,
    "sea": _sea,
}


def _clear(draw: ImageDraw.ImageDraw, size: int, rng: random.Random, sky: float) -> None:
    """Draw nothing."""


def _clouds(draw: ImageDraw.ImageDraw, size: int, rng: random.Random, sky: float) -> None:
    for _ in range(3):
        x, y = rng.uniform(0.05, 0.95), rng.uniform(0.06, 0.2)
        for dx, r in ((-0.1, 0.06), (0.0, 0.09), (0.1, 0.06)):
            _disc(draw, size, x + dx, y, r, _rgb(sky, 0.12, 0.95))


def _rain(draw: ImageDraw.ImageDraw, size: int, rng: random.Random, sky: float) -> None:
    for cell in range(16):
        x = (cell % 4 + rng.random()) / 4
        y = (cell // 4 + rng.random()) / 4
        ends = (x * size, y * size, (x - 0.04) * size, (y + 0.11) * size)
        draw.line(ends, fill=_rgb(sky, 0.2, 0.95), width=max(1, round(0.018 * size)))


def _snow(draw: ImageDraw.ImageDraw, size: int, rng: random.Random, sky: float) -> None:
    for cell in range(25):
        x = (cell % 5 + rng.random()) / 5
        y = (cell // 5 + rng.random()) / 5
        _disc(draw, size, x, y, 0.02, _rgb(sky, 0.08, 1.0))


_WEATHERS: dict[str, Callable[..., None]] = {
    "clear": _clear,
    "clouds": _clouds,
    "rain": _rain,
    "snow": _snow,
}


def _subject(draw: ImageDraw.ImageDraw, size: int, rng: random.Random, scene: Scene) -> None:
    radius = SIZES[scene.size] * rng.uniform(0.96, 1.04)
    # A subject at the side touches the margin of the image, so a smaller one is farther out.
    side = {"left": -1.0, "middle": 0.0, "right": 1.0}[scene.place]
    x = 0.5 + side * (0.46 - radius) + rng.uniform(-0.02, 0.02)
    y = 0.56 + rng.uniform(-0.03, 0.03)
    flip = -1.0 if scene.mirrored else 1.0
    tones = {
        "body": _rgb(scene.body_hue, 0.62, 0.95),
        "accent": _rgb(scene.body_hue + 0.12, 0.75, 0.72),
        "dark": _rgb(scene.body_hue, 0.5, 0.1),
        "light": _rgb(scene.body_hue, 0.15, 1.0),
    }
    edge = OUTLINE * size

    def place(shape: Shape) -> list[tuple[float, float]]:
        return [((x + flip * px * radius) * size, (y + py * radius) * size)
                for px, py in shape.points]  # fmt: skip

    for shape in SILHOUETTES[scene.subject]:
        if shape.outlined:
            _fill(draw, shape, place(shape), radius * size, tones["dark"], edge)
    for shape in SILHOUETTES[scene.subject]:
        _fill(draw, shape, place(shape), radius * size, tones[shape.tone], 0.0)


def _fill(
    draw: ImageDraw.ImageDraw,
    shape: Shape,
    points: list[tuple[float, float]],
    unit: float,
    colour: RGB,
    grow: float,
) -> None:
    """Fill one shape, enlarged by `grow` pixels on every side."""
    if shape.kind == "ellipse":
        (x0, y0), (x1, y1) = points
        left, right = min(x0, x1) - grow, max(x0, x1) + grow
        draw.ellipse((left, y0 - grow, right, y1 + grow), fill=colour)
        return
    width = shape.width * unit + 2 * grow
    if shape.kind == "polygon":
        draw.polygon(points, fill=colour)
        points = [*points, points[0]]
        width = 2 * grow
    if width >= 1:
        draw.line(points, fill=colour, width=round(width), joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=colour)


_LEVELS = np.linspace(0.0, 1.0, 256)


def relight(image: Image.Image, brightness: float, saturation: float) -> Image.Image:
    """Return the image with the given brightness and saturation (as in `truth.Colour`).

    One monotone curve is applied to the HSV value of every pixel and another to its saturation;
    the hue stays. Targets that the curves cannot reach are approached as far as possible.
    """
    pixels = np.asarray(image, dtype=np.float64) / 255.0
    value = pixels.max(axis=2)
    chroma = value - pixels.min(axis=2)
    purity = np.divide(chroma, value, out=np.zeros_like(value), where=value > 0)

    histogram = np.bincount(np.rint(value * 255).astype(int).ravel(), minlength=256) / value.size
    new_value = _curve(value, _solve(histogram, brightness))
    weights = np.bincount(
        np.rint(purity * 255).astype(int).ravel(), new_value.ravel(), minlength=256
    )
    new_purity = _curve(purity, _solve(weights / max(weights.sum(), 1e-9), saturation))

    # Each channel lies `depth` of the way from the value (0) to the lowest channel (1).
    depth = np.divide(
        value[..., None] - pixels, chroma[..., None], out=np.zeros_like(pixels),
        where=chroma[..., None] > 0,
    )  # fmt: skip
    result = new_value[..., None] * (1.0 - new_purity[..., None] * depth)
    return Image.fromarray(np.rint(result * 255).astype(np.uint8))


def _curve(x: np.ndarray, strength: float) -> np.ndarray:
    """Raise (strength > 1) or lower (strength < 1) numbers in [0, 1]; monotone in both arguments.

    Raising keeps the darkest pixels dark and lowering keeps the brightest ones bright, so that
    outline and body stay visible.
    """
    if strength >= 1.0:
        return 1.0 - (1.0 - x) ** strength
    return strength**0.35 * x ** (strength**-0.65)


def _solve(histogram: np.ndarray, mean: float) -> float:
    """Return the strength at which the histogram's mean after `_curve` is `mean` (bisection)."""
    low, high = -6.0, 4.0
    for _ in range(24):
        middle = (low + high) / 2
        if float(histogram @ _curve(_LEVELS, float(np.exp(middle)))) < mean:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))
