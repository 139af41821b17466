"""Videos that are harder to remember than those of training: more things, a long end without any, restless pictures.

Nothing is shown that the model has not seen: things, colours, places, the marker and scenes are drawn as everywhere.
What is harder is how much there is to keep, for how long, and how much else changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .world import COLOURS, DIRECTIONS, GLYPHS, Clip, Marker, Thing, generator, place


@dataclass(frozen=True)
class Hardness:
    """What is hard about a video.

    Attributes
    ----------
    things : int
        How many are shown, no two alike; fewer where the video has no room.
    tail : float
        Share of the video, at its end, that shows none of them.
    restless : bool
        Pictures cut to others every 2 to 5 seconds, each drifts, and in each dull pieces move: all of it is new all the
        time, and none of it is asked about.
    kinds : tuple of str
        What is asked: what needs a thing that was shown long ago.
    """

    things: int = 12
    tail: float = 0.3
    restless: bool = True
    kinds: tuple[str, ...] = ("colour_of", "where", "before", "after", "order", "relation", "which", "absent")


STEPS = Hardness(kinds=("colour_of", "where", "order", "relation"))
"""Of videos about which two questions are asked in one answer: kinds that are answered as well behind another one."""


def hard_clip(split: str, seed: int, index: int, seconds: int, hardness: Hardness) -> Clip:
    """Draw one video; everything follows from the arguments, and no other function draws the same.

    Parameters
    ----------
    split : str
    seed, index : int
        Seed of the whole set, and number of the video in it.
    seconds : int
        Length.
    hardness : Hardness
    """
    rng = generator(split, seed, index, 23)
    marker = None
    if rng.random() < 0.8:
        direction = str(rng.choice(DIRECTIONS))
        lane, phase, speed = rng.uniform(0.1, 0.9), rng.random(), rng.uniform(0.24, 0.4)
        marker = Marker(direction, float(lane), float(phase), float(speed))
    room = max(int((seconds - 1) * (1 - hardness.tail)), 1)  # never the last second
    number = min(hardness.things, len(GLYPHS), room)
    when = np.sort(rng.choice(room, number, replace=False))
    glyphs = rng.permutation(len(GLYPHS))[:number]
    things = []
    for second, glyph in zip(when, glyphs, strict=True):
        x, y = place(rng, marker)
        things.append(Thing(int(second), GLYPHS[int(glyph)], str(rng.choice(COLOURS)), x, y))
    return Clip(split, seconds, tuple(things), marker, (seed, index, 23), hardness.restless)
