"""Videos of the third set: eight to forty things a minute, which move, go behind something and come back.

Cameras move (`camera`), and many things have a near-duplicate: the same glyph in another colour, or a code of a letter
and a digit of which one is another. Knows no pixels, questions or models.
"""

from __future__ import annotations

import numpy as np

from .world import COLOURS, DIGITS, GLYPHS, ICONS, SHAPES, Clip, Thing, generator

LETTERS = tuple("efhknprt")
CODES = tuple(letter + digit for letter in LETTERS for digit in DIGITS)
"""Text of two characters, a letter and a digit, shown in capitals."""
FEWEST, MOST = 8, 40
"""Things a minute."""
MOST_IN_ALL = 40
ACTIVE, LATE = 60, 30
"""In a longer video, things come in so many seconds near the beginning and in so many at the end."""
LASTS = (0.45, 0.35, 0.2)
"""Shares of things that last one, two and three seconds; those of three are hidden in the second one now and then."""
HIDDEN = 0.4
TWINS = 0.45
"""How often a thing is a near-duplicate of an earlier one."""
FASTEST = 0.12
"""Frame sides a second."""
INSIDE = 0.2, 0.8
"""Where centres stay, in frame sides."""


def moving_clip(split: str, seed: int, index: int, seconds: int | None = None, dense: bool = False) -> Clip:
    """Draw one video; everything follows from the arguments.

    Parameters
    ----------
    split : str
        Decides the random stream, and later fonts, backgrounds and phrasings.
    seed, index : int
        Seed of the whole set, and number of the video in it.
    seconds : int, optional
        Length; 16 to 59 at random if left out.
    dense : bool
        As many things as there is room for (training of the vision part).
    """
    rng = generator(split, seed, index, 29)
    seconds = int(rng.integers(16, 60)) if seconds is None else seconds
    period = 1.5 if dense else 60 / float(np.exp(rng.uniform(np.log(FEWEST), np.log(MOST))))
    spans = [(0, seconds)]
    if seconds > ACTIVE + LATE:
        begin = int(rng.uniform(0, 0.1) * (seconds - ACTIVE - LATE))
        spans = [(begin, begin + ACTIVE), (seconds - LATE, seconds)]
    things: list[Thing] = []
    for begin, end in spans:
        second = begin + int(rng.integers(2))
        while second < end and len(things) < MOST_IN_ALL:
            lasts = min(1 + int(rng.choice(3, p=LASTS)), end - second, max(1, round(period)))
            things.append(_thing(rng, things, second, lasts))
            second += lasts + int(rng.poisson(max(period - lasts, 0)))
    return Clip(split, seconds, tuple(things), None, (seed, index, 29), moving=True)


def _thing(rng: np.random.Generator, earlier: list[Thing], second: int, lasts: int) -> Thing:
    """One more thing, like no earlier one in both colour and glyph, and unlike the one before in glyph."""
    known, last = {(thing.glyph, thing.colour) for thing in earlier}, earlier[-1].glyph if earlier else ""
    while True:
        glyph, colour = _what(rng, earlier)
        if glyph != last and (glyph, colour) not in known:
            break
    low, high = INSIDE
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, FASTEST)
    velocity = speed * np.array([np.cos(angle), np.sin(angle)])
    reach = np.abs(velocity) * lasts / 2
    middle = rng.uniform(low + reach, high - reach)
    x, y = middle - velocity * lasts / 2
    hidden = (second + 1,) if lasts == 3 and rng.random() < HIDDEN else ()
    return Thing(second, glyph, colour, float(x), float(y), lasts, (float(velocity[0]), float(velocity[1])), hidden)


def _what(rng: np.random.Generator, earlier: list[Thing]) -> tuple[str, str]:
    """A glyph and a colour: new ones, or those of an earlier thing but for one property."""
    if not earlier or rng.random() >= TWINS:
        kind = (DIGITS, SHAPES, ICONS, CODES)[int(rng.integers(4))]
        return str(rng.choice(kind)), str(rng.choice(COLOURS))
    like = earlier[int(rng.integers(len(earlier)))]
    if like.glyph in GLYPHS or rng.random() < 0.3:
        return like.glyph, str(rng.choice(COLOURS))
    return near_code(rng, like.glyph), str(rng.choice(COLOURS))


def near_code(rng: np.random.Generator, code: str) -> str:
    """A code that has one of two characters of this one."""
    letter, digit = code[0], code[1]
    return letter + str(rng.choice(DIGITS)) if rng.random() < 0.5 else str(rng.choice(LETTERS)) + digit
