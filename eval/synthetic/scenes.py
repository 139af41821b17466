"""Scenes: a background that may drift, and dull clutter that moves over it; knows nothing of things and questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .backgrounds import background

SHORTEST, LONGEST = 8, 40
"""Seconds that a scene lasts before the picture cuts to another one."""
RESTLESS = 2, 5
"""The same where a video is restless."""
DRIFTING, CLUTTERED = 0.35, 0.5
"""How many scenes have a background that drifts, and how many have clutter."""
UPSCALE = 2


@dataclass(frozen=True)
class _Clutter:
    """One dull piece: opacity, tone, where its centre is at time 0, and how it moves, in frame sides a second."""

    stencil: NDArray[np.float32]
    tone: NDArray[np.float32]
    start: NDArray[np.float64]
    velocity: NDArray[np.float64]


class Scene:
    """One scene, drawn at any moment.

    Parameters
    ----------
    rng : Generator
        Chooses everything.
    split : str
        Whose backgrounds.
    side : int
        Height and width in pixels.
    begin : int
        Second at which it begins.
    restless : bool
        It is short, drifts and has clutter.

    Attributes
    ----------
    end : int
        Second at which it ends.
    """

    def __init__(self, rng: np.random.Generator, split: str, side: int, begin: int, restless: bool = False) -> None:
        self._ground, self._side = background(rng, split, side), side
        shortest, longest = RESTLESS if restless else (SHORTEST, LONGEST)
        self.end = begin + int(rng.integers(shortest, longest + 1))
        speed, angle = rng.uniform(0.03, 0.25), rng.uniform(0, 2 * np.pi)
        drifting = rng.random() < DRIFTING or restless  # drawn either way
        self._drift = speed * np.array([np.sin(angle), np.cos(angle)]) if drifting else None
        pieces = int(rng.integers(1, 5)) if rng.random() < CLUTTERED or restless else 0
        middle = self._ground.mean((0, 1))
        self._clutter = [self._piece(rng, middle) for _ in range(pieces)]

    def at(self, seconds: float) -> NDArray[np.float32]:
        """The scene at a time, `[side, side, 3]`, values of about 0 to 255; the caller may draw on it."""
        if self._drift is None:
            picture = self._ground.copy()
        else:
            rows, columns = (round(v) for v in self._drift * seconds * self._side)
            picture = np.roll(self._ground, (rows, columns), (0, 1))
        for piece in self._clutter:
            self._lay(picture, piece, seconds)
        return picture

    def _piece(self, rng: np.random.Generator, middle: NDArray[np.float32]) -> _Clutter:
        """A bar, a disc or a ragged polygon, a little darker or lighter than the ground."""
        size = int(self._side * rng.uniform(0.1, 0.3))
        layer = Image.new("L", (size * UPSCALE, size * UPSCALE))
        draw = ImageDraw.Draw(layer)
        form, full = int(rng.integers(3)), size * UPSCALE
        if form == 0:
            half = rng.uniform(0.06, 0.16) * full
            draw.rectangle((0, full / 2 - half, full, full / 2 + half), 255)
        elif form == 1:
            draw.ellipse((0, 0, full - 1, full - 1), 255)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
            reach = rng.uniform(0.25, 0.5, 7) * full
            corners = full / 2 + reach * np.stack([np.cos(angles), np.sin(angles)])
            draw.polygon([(float(x), float(y)) for x, y in corners.T], 255)
        turned = layer.rotate(float(rng.uniform(0, 360)), Image.Resampling.BILINEAR)
        small = turned.resize((size, size), Image.Resampling.BOX)
        shade = rng.choice((-1, 1)) * rng.uniform(15, 45) + rng.uniform(-12, 12, 3)
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.4)
        return _Clutter(
            (np.asarray(small)[..., None] / 255 * rng.uniform(0.5, 1.0)).astype(np.float32),
            (middle + shade).astype(np.float32),
            rng.random(2),
            speed * np.array([np.sin(angle), np.cos(angle)]),
        )

    def _lay(self, picture: NDArray[np.float32], piece: _Clutter, seconds: float) -> None:
        """Blend a piece in; what leaves the frame on one side comes back on the other."""
        size = len(piece.stencil)
        top, left = ((piece.start + piece.velocity * seconds) % 1.0 * (self._side + size) - size).astype(int)
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + size, self._side), min(left + size, self._side)
        if y1 > y0 and x1 > x0:
            part = picture[y0:y1, x0:x1]
            part += piece.stencil[y0 - top : y1 - top, x0 - left : x1 - left] * (piece.tone - part)
