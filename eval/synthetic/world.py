"""What a clip shows, what can be asked about it, and what the right answer is; knows no pixels.

A clip is a row of seconds (one "grid", that is one pair of frames, at 2 frames a second). In some seconds one thing is
shown, a digit or a shape in one colour at one place; the other seconds show background only. A marker may move through
the whole clip. Everything follows from (split, seed, index) alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eval.synthetic.phrasings import phrasings

SPLITS = ("train", "dev", "test")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
DIGITS = tuple("0123456789")
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "heart")
GLYPHS = DIGITS + SHAPES
DIRECTIONS = ("left", "right", "up", "down")
KINDS = (
    "colour_first",
    "colour_last",
    "number_first",
    "number_last",
    "shape_first",
    "shape_last",
    "count",
    "motion",
)
MOST_THINGS = 6
CLEARANCE = 0.26
"""Least distance between a thing's centre and the marker's lane, in frame sides: the marker never covers a thing."""


@dataclass(frozen=True)
class Thing:
    """One thing, shown for one second.

    Attributes
    ----------
    second : int
        When it is shown.
    glyph, colour : str
        What it is: one of `GLYPHS`, one of `COLOURS`.
    x, y : float
        Its centre, in frame sides (0 to 1, from the left and from the top).
    """

    second: int
    glyph: str
    colour: str
    x: float
    y: float


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
    """A clip of `seconds` seconds; `things` in order of time; `look` seeds fonts, backgrounds and codec settings."""

    split: str
    seconds: int
    things: tuple[Thing, ...]
    marker: Marker | None
    look: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """A question, its kind and the one word that answers it."""

    kind: str
    text: str
    answer: str


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
    """Draw one clip.

    Parameters
    ----------
    split : str
        Decides the random stream, and later fonts, backgrounds and phrasings.
    seed, index : int
        Seed of the whole set, and number of the clip in it.
    seconds : int, optional
        Length; 4 to 16 at random if left out.
    dense : bool
        Show a thing in about three of four seconds (training of the vision part) instead of in 1 to 6 seconds.
    """
    rng = generator(split, seed, index)
    seconds = int(rng.integers(4, 17)) if seconds is None else seconds
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
    things: list[Thing] = []
    for second in when:
        glyphs = DIGITS if rng.random() < 0.5 else SHAPES
        glyph = str(rng.choice([g for g in glyphs if not things or g != things[-1].glyph]))
        x, y = _place(rng, marker)
        things.append(Thing(int(second), glyph, str(rng.choice(COLOURS)), x, y))
    return Clip(split, seconds, tuple(things), marker, (seed, index))


def _place(rng: np.random.Generator, marker: Marker | None) -> tuple[float, float]:
    """A centre in [.19, .81]^2 that stays clear of the marker's lane."""
    while True:
        x, y = rng.uniform(0.19, 0.81, 2)
        across = 1.0 if marker is None else abs((y if marker.direction in ("left", "right") else x) - marker.lane)
        if across >= CLEARANCE:
            return float(x), float(y)


def answer(clip: Clip, kind: str) -> str | None:
    """The right word for a kind of question, or None where the question makes no sense for this clip."""
    if kind == "count":
        return str(len(clip.things))
    if kind == "motion":
        return clip.marker.direction if clip.marker else None
    attribute, order = kind.split("_")
    words = {
        "colour": [t.colour for t in clip.things],
        "number": [t.glyph for t in clip.things if t.glyph in DIGITS],
        "shape": [t.glyph for t in clip.things if t.glyph in SHAPES],
    }[attribute]
    return (words[0] if order == "first" else words[-1]) if words else None


def questions(clip: Clip, kinds: tuple[str, ...] = KINDS, phrasing_split: str | None = None) -> list[Question]:
    """One question of each kind that this clip can answer, in a random wording of the clip's split."""
    split = phrasing_split or clip.split
    rng = generator(split, *clip.look, 7)
    asked = []
    for kind in kinds:
        right = answer(clip, kind)
        text = str(rng.choice(phrasings(kind, split)))
        if right is not None:
            asked.append(Question(kind, text, right))
    return asked
