"""More things per grid for the vision stage: cut a thing out of one grid and set it down elsewhere in another.

One thing a grid teaches little per step; with two borrowed ones the tower sees three, at places and on grounds that
the bank does not hold. Borrowed things keep clear of the grid's own thing, of its marker and of each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .bank import (
    CELLS,
    FIRST_CODE,
    LABELS,
    NO_COLOUR,
    NO_GLYPH,
    NO_MARKER,
    PIXELS,
    SECONDS,
    bank_clip,
    cell_of,
)
from .moving import LETTERS
from .world import DIGITS, Clip

THING = [0, 1, 3, 4]
"""The classes that belong to a thing, not to the marker."""

HALF = 24
"""Half the side of the square that is set down, in pixels of 112."""
WARP = 0.2
"""Borrowed things are stretched and sheared by up to so much: digits of fonts that are not in the bank."""
TRIES = 40


def places(split: str, seed: int, clips: int, still: int | None = None) -> NDArray[np.float32]:
    """Where things and markers are in a bank's grids, in pixels; NaN for none.

    Returns
    -------
    array
        `[grids, 3, 2]`: (x, y) of the thing, of the marker in the first frame, of the marker in the second frame.
    """
    out = np.full((clips * SECONDS, 3, 2), np.nan, np.float32)
    for index in range(clips):
        clip: Clip = bank_clip(split, seed, index, clips if still is None else still)
        for thing in clip.things:
            for second in thing.seen:
                out[index * SECONDS + second, 0] = thing.at(second + 0.25)
        for second in range(SECONDS) if clip.marker else ():
            for half in (0, 1):
                out[index * SECONDS + second, 1 + half] = clip.marker.at(second + half / 2)  # type: ignore[union-attr]
    return out * PIXELS


def class_maps(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """What each merged token covers, `[grids, 16, 5]`, from labels `[grids, 5]`.

    The classes are colour, glyph, direction, and a code's letter and digit; the glyph is -100 where there is a code.
    """
    cells = np.arange(CELLS * CELLS)
    colour, glyph, cell, direction, marker_cell = (labels[:, n : n + 1] for n in range(len(LABELS)))
    thing, marker, code = cell == cells, marker_cell == cells, glyph - FIRST_CODE
    written = thing & (code >= 0)
    maps = [
        np.where(thing, colour, NO_COLOUR),
        np.where(written, -100, np.where(thing, glyph, NO_GLYPH)),
        np.where(marker, direction, NO_MARKER),
        np.where(written, code // len(DIGITS), len(LETTERS)),
        np.where(written, code % len(DIGITS), len(DIGITS)),
    ]
    return np.stack(maps, -1)


def _warp(rng: np.random.Generator, square: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch and shear a square `[2, side, side, 3]` about its centre, the same way in both frames."""
    bend = np.eye(2) + rng.uniform(-WARP, WARP, (2, 2)) * ((1, 1), (0.5, 1))
    middle = np.array([HALF, HALF])
    a, b, d, e = bend.ravel()
    c, f = middle - bend @ middle
    side = (square.shape[1], square.shape[2])
    pictures = [Image.fromarray(frame) for frame in square]
    return np.stack(
        [
            np.asarray(p.transform(side, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC))
            for p in pictures
        ]
    )


def mix(
    rng: np.random.Generator,
    frames: NDArray[np.uint8],
    classes: NDArray[np.int64],
    where: NDArray[np.float32],
    borrow: int = 2,
) -> None:
    """Set borrowed things down in three of four grids of a batch, in place.

    Parameters
    ----------
    rng : Generator
        Chooses givers, takers and places.
    frames : array
        `[grids, 2, 112, 112, 3]`.
    classes : array
        `[grids, 16, 5]`, from `class_maps`.
    where : array
        `[grids, 3, 2]`, from `places`.
    borrow : int
        Most things borrowed by one grid.
    """
    inside = np.abs(where[:, 0] - PIXELS / 2).max(-1) < PIXELS / 2 - HALF
    givers = np.flatnonzero(inside & ~np.isnan(where[:, 0, 0]))
    cut = []
    for g in givers:
        x, y = (int(v) for v in where[g, 0])
        square = frames[g, :, y - HALF : y + HALF, x - HALF : x + HALF].copy()
        thing = classes[g, cell_of(*(where[g, 0] / PIXELS).tolist()), THING]
        cut.append((square, thing.copy(), where[g, 0] - (x, y)))
    for taker in np.flatnonzero(rng.random(len(frames)) < 0.75) if cut else ():
        taken = [p for p in where[taker] if not np.isnan(p[0])]
        for _ in range(borrow):
            square, thing, offset = cut[int(rng.integers(len(cut)))]
            for _ in range(TRIES):
                x, y = (int(v) for v in rng.integers(HALF, PIXELS - HALF + 1, 2))
                if all(np.abs(p - (x, y)).max() > HALF + 14 for p in taken):
                    frames[taker, :, y - HALF : y + HALF, x - HALF : x + HALF] = _warp(rng, square)
                    centre = offset + np.array([x, y])
                    classes[taker, cell_of(*(centre / PIXELS).tolist()), THING] = thing
                    taken.append(centre)
                    break
