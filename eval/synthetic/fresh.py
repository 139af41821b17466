"""Fresh codes and glyphs for the vision stage: in any font, colour and bend, set down on grids of the bank.

A bank holds each code a few times only, and a tower learns those pictures by heart. A pool of stencils, each on ever
another ground in another colour, is worth many more than any bank of videos.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .bank import NO_COLOUR, NO_MARKER, PIXELS, cell_of
from .mixing import TRIES
from .moving import CODES, LETTERS
from .render import RGB, SIDE, stencil
from .world import COLOURS, DIGITS, GLYPHS

SHARE = 0.6
"""Of the grids that get a fresh thing."""
CODED = 0.75
"""Share of codes among fresh things."""
NEAR = 22
"""Least distance, in pixels of 112, between centres of two things."""
STEP = 4.0
"""Most pixels of 112 that a thing moves from a grid's first frame to its second."""


class Fresh:
    """A pool of things to set down.

    Parameters
    ----------
    rng : Generator
        Draws them.
    split : str
        Whose fonts.
    size : int
        How many stencils.
    """

    def __init__(self, rng: np.random.Generator, split: str, size: int) -> None:
        self._rng, self._split, self._size = rng, split, size

    @cached_property
    def pool(self) -> list[tuple[str, Image.Image, Image.Image]]:
        """What each thing is, and the opacity of its body and of its dark edge; drawn when it is first needed."""
        rng, pool = self._rng, []
        for _ in range(self._size):
            words = CODES if rng.random() < CODED else GLYPHS
            glyph = words[int(rng.integers(len(words)))]
            body, rim = stencil(rng, glyph, self._split, bool(rng.random() < 0.5))
            scale = rng.uniform(0.9, 1.15) * PIXELS / SIDE
            width, height = (max(round(side * scale), 8) for side in body.size)
            small = (round(width * rng.uniform(0.9, 1.1)), height)
            pool.append((glyph, body.resize(small, Image.Resampling.BOX), rim.resize(small, Image.Resampling.BOX)))
        return pool

    def put(
        self,
        rng: np.random.Generator,
        frames: NDArray[np.uint8],
        classes: NDArray[np.int64],
        where: NDArray[np.float32],
    ) -> None:
        """Set things down in a share of a batch's grids, in place; arguments as `mixing.mix`'s."""
        for n in np.flatnonzero(rng.random(len(frames)) < SHARE):
            taken = [point for point in where[n] if not np.isnan(point[0])]
            # a cell that says something already is not written over
            said = (classes[n, :, 0] != NO_COLOUR) | (classes[n, :, 2] != NO_MARKER)
            for _ in range(TRIES):
                centre = rng.uniform(0.2, 0.8, 2) * PIXELS
                x, y = centre / PIXELS
                clear = all(np.abs(point - centre).max() > NEAR + 12 for point in taken)
                if clear and not said[max(cell_of(x, y) - 5, 0) : cell_of(x, y) + 6].any():
                    self._draw(rng, frames[n], classes[n], centre)
                    break

    def _draw(
        self, rng: np.random.Generator, pair: NDArray[np.uint8], classes: NDArray[np.int64], centre: NDArray[np.float64]
    ) -> None:
        glyph, body, rim = self.pool[int(rng.integers(len(self.pool)))]
        colour = int(rng.integers(len(COLOURS)))
        rgb = np.array(RGB[COLOURS[colour]]) * rng.uniform(0.85, 1.0) + rng.uniform(-8, 8, 3)
        move = rng.uniform(-STEP, STEP, 2) if rng.random() < 0.6 else np.zeros(2)
        edged = rng.random() < 0.5
        for half, frame in enumerate(pair):
            left, top = (round(v) for v in centre + (half - 0.5) * move - np.array(body.size) / 2)
            for layer, tone in ((rim, np.array((20, 20, 20))),) * edged + ((body, rgb),):
                alpha = np.asarray(layer, np.float32)[..., None] / 255
                y0, x0 = max(top, 0), max(left, 0)
                y1, x1 = min(top + alpha.shape[0], PIXELS), min(left + alpha.shape[1], PIXELS)
                part = alpha[y0 - top : y1 - top, x0 - left : x1 - left]
                under = frame[y0:y1, x0:x1]
                frame[y0:y1, x0:x1] = np.clip(under + part * (tone - under), 0, 255).astype(np.uint8)
        cell = cell_of(*(centre / PIXELS).tolist())
        if glyph in CODES:
            code = CODES.index(glyph)
            classes[cell] = colour, -100, classes[cell, 2], code // len(DIGITS), code % len(DIGITS)
        else:
            classes[cell] = colour, GLYPHS.index(glyph), classes[cell, 2], len(LETTERS), len(DIGITS)
