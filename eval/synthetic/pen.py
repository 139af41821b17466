"""Digits written with a pen of random width, for training: forms that the fonts at hand lack, an open 4, a flat 3."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw

from .outlines import Point, arc

Line = list[Point]


def _arc(x: float, y: float, wide: float, high: float, start: float, end: float) -> Line:
    """Part of an ellipse, from one angle to another in degrees."""
    return arc(x, y, wide, high, np.deg2rad(np.linspace(start, end, 25)))


_SIX: tuple[tuple[Line, ...], ...] = (
    ([(0.4, -1), (-0.02, -0.75), (-0.4, -0.2), (-0.58, 0.4)], _arc(0, 0.4, 0.58, 0.6, 0, 360)),
    ([(0.2, -1), (-0.5, 0.15)], _arc(0, 0.42, 0.58, 0.58, 0, 360)),
)
FORMS: dict[str, tuple[tuple[Line, ...], ...]] = {
    "0": ((_arc(0, 0, 0.62, 1, 0, 360),), (_arc(0, 0, 0.48, 1, 0, 360),)),
    "1": (
        ([(-0.4, -0.6), (0.05, -1), (0.05, 1)],),
        ([(-0.4, -0.6), (0.05, -1), (0.05, 1)], [(-0.45, 1), (0.55, 1)]),
    ),
    "2": (([*_arc(0, -0.42, 0.58, 0.58, 190, 380), (-0.6, 1), (0.65, 1)],),),
    "3": (
        (_arc(-0.05, -0.5, 0.5, 0.5, 200, 440), _arc(-0.05, 0.45, 0.6, 0.55, -90, 160)),
        ([(-0.55, -1), (0.5, -1), (-0.05, -0.2), *_arc(-0.05, 0.4, 0.6, 0.6, -90, 155)],),
    ),
    "4": (
        ([(0.3, 1), (0.3, -1), (-0.7, 0.4), (0.75, 0.4)],),
        ([(-0.25, -1), (-0.65, 0.3), (0.7, 0.3)], [(0.3, -0.35), (0.3, 1)]),
        ([(0.1, -1), (-0.7, 0.45), (0.7, 0.45)], [(0.3, -0.1), (0.3, 1)]),
    ),
    "5": (([(0.5, -1), (-0.45, -1), (-0.52, -0.1), *_arc(-0.05, 0.38, 0.6, 0.6, 230, 510)],),),
    "6": _SIX,
    "7": (
        ([(-0.6, -1), (0.6, -1), (-0.15, 1)],),
        ([(-0.6, -1), (0.6, -1), (-0.15, 1)], [(-0.3, 0.05), (0.5, 0.05)]),
    ),
    "8": ((_arc(0, -0.5, 0.47, 0.5, 0, 360), _arc(0, 0.48, 0.58, 0.52, 0, 360)),),
    "9": tuple(tuple([(-x, -y) for x, y in line] for line in form) for form in _SIX),
}
"""Ways to write each digit: lines in a box from -1 to 1, down is positive."""


class Pen:
    """One way to write, the same for a thing's body and its edge.

    Parameters
    ----------
    rng : Generator
        Chooses the form, the pen's width, and how far the hand strays.
    digit : str
        Which digit.
    """

    def __init__(self, rng: np.random.Generator, digit: str) -> None:
        form = FORMS[digit][int(rng.integers(len(FORMS[digit])))]
        bend = np.eye(2) + rng.uniform(-0.12, 0.12, (2, 2))
        self._lines = [np.array(line) @ bend for line in form]
        self._width = rng.uniform(0.26, 0.5)

    def draw(self, draw: ImageDraw.ImageDraw, middle: float, half: float, grow: int) -> None:
        """Write the digit, `half` pixels from its middle to its top, the line `grow` pixels wider on each side."""
        width = int(half * self._width) + 2 * grow
        for line in self._lines:
            points = [(float(x), float(y)) for x, y in middle + line * half * (1 - self._width / 2)]
            draw.line(points, 255, width, joint="curve")
            for x, y in points:  # round ends, and no notches on the outside of bends
                draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), 255)
