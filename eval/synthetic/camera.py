"""Scenes of a moving camera: it pans, zooms and shakes over a photograph, footage or a texture, until a cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .backgrounds import background
from .photographs import FOOTAGE, FRAME_SECONDS, PHOTOGRAPHS, film, photograph
from .scenes import Scene

PHOTOGRAPHED, FILMED = 0.45, 0.25
"""Shares of the scenes over a photograph and over footage; the rest have a texture."""
MARGIN = {"photograph": 1.7, "film": 1.35, "texture": 1.7}
"""Side of the square that the camera moves over, in frame sides."""
NEAREST, FARTHEST = 0.55, 0.95
"""Least and largest side of what the camera sees, in sides of that square."""
SHORTEST, LONGEST = 4, 15
"""Seconds between two cuts."""
CLUTTERED = 0.5


class MovingScene(Scene):
    """One scene of a moving camera, drawn at any moment.

    Parameters
    ----------
    rng : Generator
        Chooses everything.
    split : str
        Whose photographs, footage and textures.
    side : int
        Height and width in pixels.
    begin : int
        Second at which it begins.

    Attributes
    ----------
    end : int
        Second at which it ends.
    """

    def __init__(self, rng: np.random.Generator, split: str, side: int, begin: int) -> None:
        self._side, self._begin = side, begin
        self.end = begin + int(rng.integers(SHORTEST, LONGEST + 1))
        draw = rng.random()
        names = {"photograph": PHOTOGRAPHS[split], "film": FOOTAGE[split], "texture": ("",)}
        kind = "photograph" if draw < PHOTOGRAPHED else "film" if draw < PHOTOGRAPHED + FILMED else "texture"
        name = names[kind][int(rng.integers(len(names[kind])))]
        large = round(side * MARGIN[kind])
        if kind == "texture":
            self._frames = np.clip(background(rng, split, large), 0, 255).astype(np.uint8)[None]
        else:
            self._frames = film(name, large) if kind == "film" else photograph(name, large)[None]
        self._mirrored = bool(rng.random() < 0.5)
        self._first = int(rng.integers(len(self._frames)))
        self._start, self._size = rng.random(2), rng.uniform(NEAREST + 0.05, FARTHEST - 0.05)
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.2)
        self._pan = speed * np.array([np.cos(angle), np.sin(angle)])
        self._zoom = rng.uniform(-0.08, 0.08)
        self._shake = rng.uniform(0, 0.02), rng.uniform(0.7, 3.0, 2), rng.uniform(0, 2 * np.pi, 2)
        self._gain, self._colour = (1.0, 1.0) if kind == "texture" else (rng.uniform(0.45, 0.8), rng.uniform(0.3, 0.8))
        self._tone = None if kind == "texture" else rng.uniform(75, 155)
        middle = np.full(3, self._tone if self._tone is not None else self._frames[0].mean(), np.float32)
        pieces = int(rng.integers(1, 5)) if rng.random() < CLUTTERED else 0
        self._clutter = [self._piece(rng, middle) for _ in range(pieces)]

    def window(self, seconds: float) -> tuple[float, float, float]:
        """What the camera sees at a time: left, top and side, in sides of the square that it moves over."""
        since = seconds - self._begin
        size = float(np.clip(self._size * np.exp(self._zoom * since), NEAREST, FARTHEST))
        strength, often, phase = self._shake
        at = self._start + self._pan * since + strength * np.sin(2 * np.pi * often * since + phase)
        swung = 1 - np.abs(1 - at % 2)  # it turns around at the edges
        left, top = swung * (1 - size)
        return float(left), float(top), size

    def at(self, seconds: float) -> NDArray[np.float32]:
        """The scene at a time, `[side, side, 3]`, values of about 0 to 255; the caller may draw on it."""
        number = self._first + int((seconds - self._begin) / FRAME_SECONDS)
        swing = number % max(2 * len(self._frames) - 2, 1)  # to the end and back
        frame = self._frames[min(swing, 2 * len(self._frames) - 2 - swing) if len(self._frames) > 1 else 0]
        left, top, size = (value * len(frame) for value in self.window(seconds))
        step = size / self._side
        seen = Image.fromarray(frame).transform(
            (self._side, self._side), Image.Transform.AFFINE, (step, 0, left, 0, step, top), Image.Resampling.BILINEAR
        )
        picture = np.asarray(seen, np.float32)
        if self._mirrored:
            picture = picture[:, ::-1]
        if self._tone is not None:
            grey = picture.mean(-1, keepdims=True)
            dull = grey + self._colour * (picture - grey)
            picture = self._tone + self._gain * (dull - 110)
        picture = np.ascontiguousarray(picture)
        for piece in self._clutter:
            self._lay(picture, piece, seconds)
        return picture
