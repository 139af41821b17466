"""Outlines of shapes and icons: polygons in a square from -1 to 1, and the holes in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
_BAR = 0.34
_CORNERS: dict[str, list[Point]] = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -1), (1, 0.85), (-1, 0.85)],
    "diamond": [(0, -1.1), (0.8, 0), (0, 1.1), (-0.8, 0)],
    "cross": [
        (_BAR, -_BAR),
        (1, -_BAR),
        (1, _BAR),
        (_BAR, _BAR),
        (_BAR, 1),
        (-_BAR, 1),
        (-_BAR, _BAR),
        (-1, _BAR),
        (-1, -_BAR),
        (-_BAR, -_BAR),
        (-_BAR, -1),
        (_BAR, -1),
    ],
    "house": [(0, -1.05), (1.1, -0.1), (0.8, -0.1), (0.8, 0.95), (-0.8, 0.95), (-0.8, -0.1), (-1.1, -0.1)],
    "tree": [
        (0, -1.15),
        (0.6, -0.45),
        (0.35, -0.45),
        (0.95, 0.45),
        (0.22, 0.45),
        (0.22, 1.1),
        (-0.22, 1.1),
        (-0.22, 0.45),
        (-0.95, 0.45),
        (-0.35, -0.45),
        (-0.6, -0.45),
    ],
    "car": [
        (-1.15, 0.05),
        (-0.75, 0.0),
        (-0.45, -0.6),
        (0.5, -0.6),
        (0.8, 0.0),
        (1.15, 0.1),
        (1.15, 0.5),
        (-1.15, 0.5),
    ],
    "cup": [(-0.9, -0.8), (0.65, -0.8), (0.45, 0.9), (-0.7, 0.9)],
    "key": [
        (-0.2, -0.16),
        (1.15, -0.16),
        (1.15, 0.6),
        (0.85, 0.6),
        (0.85, 0.18),
        (0.6, 0.18),
        (0.6, 0.5),
        (0.32, 0.5),
        (0.32, 0.18),
        (-0.2, 0.18),
    ],
    "boat": [
        (-0.08, -1.15),
        (0.85, 0.1),
        (0.08, 0.1),
        (0.08, 0.3),
        (1.15, 0.3),
        (0.65, 0.95),
        (-0.65, 0.95),
        (-1.15, 0.3),
        (-0.08, 0.3),
    ],
}


def arc(x: float, y: float, width: float, height: float, angles: NDArray[np.float64]) -> list[Point]:
    """Points of an ellipse about (x, y), half its width and height given, at angles from the right and then down."""
    return [(float(x + width * np.cos(a)), float(y + height * np.sin(a))) for a in angles]


def _ring(x: float, y: float, width: float, height: float, points: int = 40) -> list[Point]:
    return arc(x, y, width, height, np.linspace(0, 2 * np.pi, points, endpoint=False))


def _star() -> list[Point]:
    turns = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.1, 0.45)
    return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radius, turns, strict=True)]


def _heart() -> list[Point]:
    a = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(a) ** 3
    y = 13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a)
    return [(float(u / 16), float(-v / 16 - 0.08)) for u, v in zip(x, y, strict=True)]


def _moon() -> list[Point]:
    """A sickle: an outer arc, and back along a shallower one."""
    outer = np.linspace(-0.62 * np.pi, 0.62 * np.pi, 30) + np.pi
    inner = np.linspace(0.42 * np.pi, -0.42 * np.pi, 30) + np.pi
    back = arc(0.35, 0, 1.05, 1.05, outer)
    tip = back[-1][1] / float(np.sin(inner[0]))
    return back + arc(0.62, 0, 0.75, tip, inner)


def outline(glyph: str) -> list[list[Point]]:
    """The polygons whose union a shape or icon is."""
    if glyph in _CORNERS:
        parts = [_CORNERS[glyph]]
        if glyph == "car":
            parts += [_ring(-0.6, 0.55, 0.32, 0.32), _ring(0.6, 0.55, 0.32, 0.32)]
        if glyph == "key":
            parts.append(_ring(-0.6, 0.0, 0.58, 0.58))
        return parts
    return {
        "circle": [_ring(0, 0, 0.95, 0.95)],
        "star": [_star()],
        "heart": [_heart()],
        "moon": [_moon()],
        "fish": [_ring(-0.2, 0, 0.85, 0.55), [(0.45, 0), (1.15, -0.65), (1.15, 0.65)]],
    }[glyph]


def holes(glyph: str) -> list[list[Point]]:
    """Polygons cut out of it: a door, an eye, a window, the bow of a key."""
    return {
        "house": [[(-0.22, 0.3), (0.22, 0.3), (0.22, 0.95), (-0.22, 0.95)]],
        "fish": [_ring(-0.62, -0.12, 0.12, 0.12)],
        "car": [[(-0.28, -0.42), (0.02, -0.42), (0.02, -0.05), (-0.5, -0.05)]],
        "key": [_ring(-0.6, 0.0, 0.24, 0.24)],
    }.get(glyph, [])


def strokes(glyph: str) -> list[list[Point]]:
    """Open lines that are drawn thick: a cup's handle."""
    if glyph != "cup":
        return []
    a = np.linspace(-0.45 * np.pi, 0.45 * np.pi, 20)
    return [arc(0.55, -0.1, 0.5, 0.45, a)]
