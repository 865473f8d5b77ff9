"""Silhouettes of the subjects: a few shapes each, in the box [-1, 1] x [-1, 1] with y downwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
Tone = Literal["body", "accent", "dark", "light"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One filled shape."""

    kind: Literal["polygon", "ellipse", "line"]
    points: tuple[Point, ...]
    """Points of a polygon or line; two opposite corners of an ellipse's bounding box."""
    tone: Tone = "body"
    """Key of its colour."""
    width: float = 0.0
    """Width of a line, in box units."""
    outlined: bool = True
    """Whether it has an outline; details (eyes, spots) have none."""


def _polygon(*points: Point, tone: Tone = "body", outlined: bool = True) -> Shape:
    return Shape("polygon", points, tone, outlined=outlined)


def _disc(x: float, y: float, rx: float, ry: float | None = None, tone: Tone = "body") -> Shape:
    ry = rx if ry is None else ry
    return Shape("ellipse", ((x - rx, y - ry), (x + rx, y + ry)), tone)


def _spot(x: float, y: float, rx: float, ry: float | None = None, tone: Tone = "dark") -> Shape:
    ry = rx if ry is None else ry
    return Shape("ellipse", ((x - rx, y - ry), (x + rx, y + ry)), tone, outlined=False)


def _line(*points: Point, width: float, tone: Tone = "body", outlined: bool = True) -> Shape:
    return Shape("line", points, tone, width, outlined)


def _boat() -> list[Shape]:
    return [
        _line((0.0, -0.95), (0.0, 0.4), width=0.1, tone="light"),
        _polygon((0.1, -0.95), (0.1, 0.25), (0.85, 0.25)),
        _polygon((-0.1, -0.7), (-0.1, 0.25), (-0.75, 0.25)),
        _polygon((-1.0, 0.4), (1.0, 0.4), (0.65, 0.95), (-0.65, 0.95), tone="accent"),
    ]


def _butterfly() -> list[Shape]:
    shapes = []
    for side in (-1, 1):
        shapes += [
            _polygon((side * 0.05, 0.0), (side * 0.45, -0.9), (side * 0.95, -0.85),
                     (side * 0.95, -0.35), (side * 0.6, 0.05)),
            _polygon((side * 0.05, 0.0), (side * 0.7, 0.1), (side * 0.8, 0.55),
                     (side * 0.45, 0.9), (side * 0.2, 0.7), tone="accent"),
            _spot(side * 0.65, -0.52, 0.17, tone="light"),
            _line((side * 0.04, -0.45), (side * 0.22, -0.95), width=0.07, tone="dark"),
        ]  # fmt: skip
    return [*shapes, _line((0.0, -0.5), (0.0, 0.65), width=0.2, tone="dark")]


def _cat() -> list[Shape]:
    shapes = [
        _line((0.4, 0.85), (0.85, 0.75), (0.92, 0.35), (0.75, 0.05), width=0.2),
        _disc(0.0, 0.45, 0.52, 0.55),
        _disc(0.0, -0.3, 0.58, 0.47),
    ]
    for side in (-1, 1):
        shapes += [
            _polygon((side * 0.56, -0.3), (side * 0.55, -1.0), (side * 0.08, -0.68)),
            _polygon((side * 0.46, -0.5), (side * 0.47, -0.8), (side * 0.24, -0.65),
                     tone="accent", outlined=False),
            _spot(side * 0.24, -0.34, 0.13, 0.15, tone="light"),
            _spot(side * 0.24, -0.34, 0.06, 0.13),
        ]  # fmt: skip
    nose = _polygon((-0.1, -0.14), (0.1, -0.14), (0.0, -0.02), tone="accent", outlined=False)
    return [*shapes, nose, _spot(0.0, 0.6, 0.26, 0.3, tone="light")]


def _flower() -> list[Shape]:
    shapes = [
        _line((0.0, 0.1), (0.0, 1.0), width=0.16, tone="accent"),
        _polygon((0.05, 0.85), (0.3, 0.45), (0.75, 0.4), (0.5, 0.8), tone="accent"),
    ]
    for step in range(6):
        angle = math.tau * step / 6
        shapes.append(_disc(0.42 * math.sin(angle), -0.35 + 0.42 * math.cos(angle), 0.27))
    return [*shapes, _spot(0.0, -0.35, 0.27, tone="dark"), _spot(0.0, -0.35, 0.19, tone="light")]


def _heart() -> list[Shape]:
    curve = []
    for step in range(48):
        t = math.tau * step / 48
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        curve.append((math.sin(t) ** 3, -y / 15 - 0.1))
    return [_polygon(*curve), _spot(-0.45, -0.45, 0.17, 0.13, tone="light")]


def _house() -> list[Shape]:
    return [
        _polygon((0.35, -0.85), (0.65, -0.85), (0.65, -0.2), (0.35, -0.2), tone="accent"),
        _polygon((-0.75, -0.1), (0.75, -0.1), (0.75, 0.95), (-0.75, 0.95)),
        _polygon((-1.0, -0.05), (0.0, -0.9), (1.0, -0.05), tone="accent"),
        _polygon((-0.2, 0.95), (-0.2, 0.3), (0.2, 0.3), (0.2, 0.95), tone="dark", outlined=False),
        _spot(-0.47, 0.3, 0.14, tone="light"),
        _spot(0.47, 0.3, 0.14, tone="light"),
    ]


def _skull() -> list[Shape]:
    shapes = [
        _polygon((-0.45, 0.1), (0.45, 0.1), (0.4, 0.95), (-0.4, 0.95)),
        _disc(0.0, -0.25, 0.82, 0.7),
        _polygon((-0.42, 0.3), (0.42, 0.3), (0.38, 0.9), (-0.38, 0.9), outlined=False),
        _polygon((0.0, 0.0), (0.14, 0.26), (-0.14, 0.26), tone="dark", outlined=False),
    ]
    shapes += [_spot(side * 0.35, -0.22, 0.23, 0.25) for side in (-1, 1)]
    teeth = (-0.2, 0.0, 0.2)
    return shapes + [
        _line((x, 0.55), (x, 0.95), width=0.07, tone="dark", outlined=False) for x in teeth
    ]


def _snake() -> list[Shape]:
    path = []
    for step in range(33):
        t = step / 32
        path.append((0.62 * math.cos(2.5 * math.pi * t) * (1 - 0.2 * t), 0.82 - 1.4 * t))
    stripes = [_spot(x, y, 0.09, tone="accent") for x, y in path[2:-4:4]]
    return [
        _line((0.0, -0.62), (0.6, -0.72), (0.9, -0.9), width=0.06, tone="accent"),
        _line((0.6, -0.72), (0.92, -0.6), width=0.06, tone="accent"),
        _line(*path, width=0.32),
        _disc(0.12, -0.65, 0.36, 0.27),
        *stripes,
        _spot(0.2, -0.74, 0.1, tone="dark"),
    ]


def _spider() -> list[Shape]:
    shapes = []
    for side in (-1, 1):
        for knee, foot in ((-0.75, -0.95), (-0.35, -0.25), (0.1, 0.5), (0.45, 1.0)):
            shapes.append(
                _line((0.0, 0.05), (side * 0.6, knee), (side * 0.98, foot), width=0.09, tone="dark")
            )
    shapes += [_disc(0.0, 0.3, 0.46, 0.5), _disc(0.0, -0.32, 0.3, 0.28)]
    shapes += [_spot(side * 0.13, -0.38, 0.1, tone="light") for side in (-1, 1)]
    mark = _polygon((-0.2, 0.1), (0.2, 0.1), (-0.2, 0.55), (0.2, 0.55), tone="accent")
    return [*shapes, Shape(mark.kind, mark.points, mark.tone, outlined=False)]


def _tree() -> list[Shape]:
    return [
        _polygon((-0.16, 0.5), (0.16, 0.5), (0.16, 1.0), (-0.16, 1.0), tone="accent"),
        _polygon((-0.85, 0.65), (0.0, -0.2), (0.85, 0.65)),
        _polygon((-0.68, 0.2), (0.0, -0.6), (0.68, 0.2)),
        _polygon((-0.5, -0.25), (0.0, -1.0), (0.5, -0.25)),
    ]


SILHOUETTES: dict[str, tuple[Shape, ...]] = {
    "boat": tuple(_boat()),
    "butterfly": tuple(_butterfly()),
    "cat": tuple(_cat()),
    "flower": tuple(_flower()),
    "heart": tuple(_heart()),
    "house": tuple(_house()),
    "skull": tuple(_skull()),
    "snake": tuple(_snake()),
    "spider": tuple(_spider()),
    "tree": tuple(_tree()),
}
"""Subject -> its shapes, in drawing order."""
