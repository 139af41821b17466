"""Backgrounds: families of textures, held out per split; dull and of middling brightness, so that things stand out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""`[height, width]`, values of about -1 to 1."""


def _axes(side: int) -> tuple[Field, Field]:
    line = np.linspace(0, 1, side, dtype=np.float32)
    return line[:, None], line[None, :]


def _enlarge(small: Field, side: int) -> Field:
    """Bilinear enlargement of a small square field."""
    at = np.linspace(0, len(small) - 1, side, dtype=np.float32)
    low = np.minimum(at.astype(int), len(small) - 2)
    part = (at - low)[:, None]
    rows = small[low] * (1 - part) + small[low + 1] * part
    return (rows[:, low] * (1 - part.T) + rows[:, low + 1] * part.T).astype(np.float32)


def flat(rng: np.random.Generator, side: int) -> Field:
    """One tone."""
    return np.zeros((side, side), np.float32)


def slope(rng: np.random.Generator, side: int) -> Field:
    """A linear gradient."""
    y, x = _axes(side)
    angle = rng.uniform(0, 2 * np.pi)
    return (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)) * 1.6


def clouds(rng: np.random.Generator, side: int) -> Field:
    """Smooth noise of two scales."""
    total = np.zeros((side, side), np.float32)
    for cells, weight in ((int(rng.integers(3, 7)), 0.7), (int(rng.integers(8, 20)), 0.4)):
        total += weight * _enlarge(rng.uniform(-1, 1, (cells, cells)).astype(np.float32), side)
    return total


def stripes(rng: np.random.Generator, side: int) -> Field:
    """Parallel soft stripes."""
    y, x = _axes(side)
    angle, waves = rng.uniform(0, np.pi), rng.uniform(3, 14)
    return np.sin(2 * np.pi * waves * (np.cos(angle) * x + np.sin(angle) * y)) * 0.8


def checks(rng: np.random.Generator, side: int) -> Field:
    """A chequered floor."""
    y, x = _axes(side)
    cells = int(rng.integers(3, 10))
    return (((x * cells).astype(int) + (y * cells).astype(int)) % 2 * 2 - 1).astype(np.float32) * 0.7


def blobs(rng: np.random.Generator, side: int) -> Field:
    """Soft round spots."""
    y, x = _axes(side)
    total = np.zeros((side, side), np.float32)
    for _ in range(int(rng.integers(3, 9))):
        cx, cy, radius = rng.random(), rng.random(), rng.uniform(0.05, 0.25)
        total += rng.choice([-1, 1]) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
    return np.clip(total, -1, 1)


def rings(rng: np.random.Generator, side: int) -> Field:
    """A radial wave."""
    y, x = _axes(side)
    far = np.sqrt((x - rng.random()) ** 2 + (y - rng.random()) ** 2)
    return np.sin(2 * np.pi * rng.uniform(1, 7) * far).astype(np.float32) * 0.8


def dots(rng: np.random.Generator, side: int) -> Field:
    """Rows of dots."""
    y, x = _axes(side)
    cells, radius = rng.integers(4, 10), rng.uniform(0.2, 0.4)
    far = np.sqrt(((x * cells) % 1 - 0.5) ** 2 + ((y * cells) % 1 - 0.5) ** 2)
    return np.where(far < radius, 0.7, -0.5).astype(np.float32)


def bricks(rng: np.random.Generator, side: int) -> Field:
    """A brick wall, each brick with its own tone."""
    y, x = _axes(side)
    rows = int(rng.integers(5, 12))
    row = (y * rows).astype(int)
    column = ((x + 0.5 / rows * (row % 2) * 2) * rows / 2).astype(int)
    tones = rng.uniform(-0.7, 0.9, (rows + 2, rows + 4)).astype(np.float32)
    joint = ((y * rows) % 1 < 0.1) | (((x + 0.5 / rows * (row % 2) * 2) * rows / 2) % 1 < 0.05)
    return np.where(joint, -1, tones[row, column]).astype(np.float32)


def cells(rng: np.random.Generator, side: int) -> Field:
    """Patches around random points (a Voronoi mosaic)."""
    y, x = _axes(side)
    points = rng.random((int(rng.integers(8, 24)), 2)).astype(np.float32)
    far = (x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2
    return rng.uniform(-0.9, 0.9, len(points)).astype(np.float32)[far.argmin(-1)]


def weave(rng: np.random.Generator, side: int) -> Field:
    """Two crossed waves, one bent."""
    y, x = _axes(side)
    bend = rng.uniform(0.05, 0.2) * np.sin(2 * np.pi * rng.uniform(1, 3) * y)
    return (np.sin(2 * np.pi * rng.uniform(2, 9) * (x + bend)) + np.sin(2 * np.pi * rng.uniform(2, 9) * y)) * 0.5


FAMILIES: dict[str, tuple[Callable[[np.random.Generator, int], Field], ...]] = {
    "train": (flat, slope, clouds, stripes, checks, blobs),
    "dev": (rings, dots),
    "test": (bricks, cells, weave),
}


def background(rng: np.random.Generator, split: str, side: int) -> NDArray[np.float32]:
    """One background of a split's families, `[side, side, 3]`, values 0 to 255."""
    family = FAMILIES[split][int(rng.integers(len(FAMILIES[split])))]
    tone = rng.uniform(60, 165) + rng.uniform(-22, 22, 3)
    swing = rng.uniform(4, 34) + rng.uniform(-8, 8, 3)
    picture = tone + family(rng, side)[..., None] * swing
    grain = rng.uniform(0, 9)
    return (picture + grain * rng.standard_normal((side, side, 1))).astype(np.float32)
