"""What a video shows; knows no pixels, questions or models.

A video is a row of seconds (one "grid", that is one pair of frames, at 2 frames a second). In some seconds one thing is
shown, a digit, a shape or an icon in one colour at one place; the other seconds show background only. A marker may move
through the whole video. Everything follows from (split, seed, index) alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPLITS = ("train", "dev", "test")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
DIGITS = tuple("0123456789")
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "heart")
ICONS = ("house", "tree", "fish", "car", "cup", "key", "moon", "boat")
GLYPHS = DIGITS + SHAPES + ICONS
DIRECTIONS = ("left", "right", "up", "down")
MOST_THINGS = 8
LAST_SHOWN = 0.4
"""How often, at least, the last second shows a thing: otherwise nothing is on the screen when a question is asked."""
CLEARANCE = 0.26
"""Least distance between a thing's centre and the marker's lane, in frame sides: the marker never covers a thing."""


@dataclass(frozen=True)
class Thing:
    """One thing, shown for one second; in the third set (`moving`) it may last longer, move and be hidden.

    Attributes
    ----------
    second : int
        When it is shown, from that second to the next.
    glyph, colour : str
        What it is: one of `GLYPHS` (or of `moving.CODES`), one of `COLOURS`.
    x, y : float
        Its centre, in frame sides (0 to 1, from the left and from the top), when it comes.
    lasts : int
        Seconds from its coming to its going.
    velocity : tuple of float
        How its centre moves, in frame sides a second.
    hidden : tuple of int
        Seconds in which something stands before it.
    """

    second: int
    glyph: str
    colour: str
    x: float
    y: float
    lasts: int = 1
    velocity: tuple[float, float] = (0.0, 0.0)
    hidden: tuple[int, ...] = ()

    def at(self, seconds: float) -> tuple[float, float]:
        """Its centre (x, y) in frame sides at a time in seconds."""
        since = seconds - self.second
        return self.x + self.velocity[0] * since, self.y + self.velocity[1] * since

    @property
    def seen(self) -> tuple[int, ...]:
        """The seconds in which it is to be seen."""
        return tuple(s for s in range(self.second, self.second + self.lasts) if s not in self.hidden)


@dataclass(frozen=True)
class Marker:
    """A disc that moves one way during the whole clip and comes back at the other edge.

    Attributes
    ----------
    direction : str
        One of `DIRECTIONS`.
    lane, phase : float
        Its fixed coordinate, and its moving coordinate at time 0; in frame sides.
    speed : float
        Frame sides a second, always positive.
    """

    direction: str
    lane: float
    phase: float
    speed: float

    def at(self, seconds: float) -> tuple[float, float]:
        """Centre (x, y) in frame sides at a time in seconds."""
        sign = -1 if self.direction in ("left", "up") else 1
        along = (self.phase + sign * self.speed * seconds) % 1.0
        return (along, self.lane) if self.direction in ("left", "right") else (self.lane, along)


@dataclass(frozen=True)
class Clip:
    """A video of `seconds` seconds; `things` in order of time; `look` seeds fonts, scenes and the codec.

    `restless` scenes are short, and all of them drift and have clutter; in those of `moving` the camera moves.
    """

    split: str
    seconds: int
    things: tuple[Thing, ...]
    marker: Marker | None
    look: tuple[int, ...]
    restless: bool = False
    moving: bool = False


def generator(split: str, *numbers: int) -> np.random.Generator:
    """Random numbers of one split: no two splits share a stream, whatever the seeds.

    Raises
    ------
    ValueError
        If the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"got split {split!r}, expected one of {SPLITS}")
    return np.random.default_rng([SPLITS.index(split), *numbers])


def sample_clip(split: str, seed: int, index: int, seconds: int | None = None, dense: bool = False) -> Clip:
    """Draw one video.

    Parameters
    ----------
    split : str
        Decides the random stream, and later fonts, backgrounds and phrasings.
    seed, index : int
        Seed of the whole set, and number of the video in it.
    seconds : int, optional
        Length; 4 to 32 at random if left out.
    dense : bool
        Show a thing in about three of four seconds (training of the vision part) instead of in 1 to 8 seconds.
    """
    rng = generator(split, seed, index)
    seconds = int(rng.integers(4, 33)) if seconds is None else seconds
    most = seconds if dense else min(MOST_THINGS, seconds)
    count = int(np.clip(rng.binomial(seconds, 0.75), 1, most)) if dense else int(rng.integers(1, most + 1))
    marker = None
    if rng.random() < 0.8:
        marker = Marker(
            direction=str(rng.choice(DIRECTIONS)),
            lane=float(rng.uniform(0.1, 0.9)),
            phase=float(rng.random()),
            speed=float(rng.uniform(0.24, 0.4)),
        )
    when = np.sort(rng.choice(seconds, size=count, replace=False))
    if rng.random() < LAST_SHOWN:
        when[-1] = seconds - 1
    things: list[Thing] = []
    for second in when:
        glyphs = (DIGITS, SHAPES, ICONS)[int(rng.integers(3))]
        glyph = str(rng.choice([g for g in glyphs if not things or g != things[-1].glyph]))
        x, y = place(rng, marker)
        things.append(Thing(int(second), glyph, str(rng.choice(COLOURS)), x, y))
    return Clip(split, seconds, tuple(things), marker, (seed, index))


def place(rng: np.random.Generator, marker: Marker | None) -> tuple[float, float]:
    """A centre in [.19, .81]^2 that stays clear of the marker's lane."""
    while True:
        x, y = rng.uniform(0.19, 0.81, 2)
        across = 1.0 if marker is None else abs((y if marker.direction in ("left", "right") else x) - marker.lane)
        if across >= CLEARANCE:
            return float(x), float(y)
