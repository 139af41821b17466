"""What a model that has understood a video so far knows: the classes that lessons ask of its middle layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .bank import CELLS
from .moving import CODES, LETTERS
from .puzzles import corner_of, split_by_name
from .quiz import CORNERS, COUNTS
from .world import COLOURS, DIGITS, DIRECTIONS, GLYPHS, ICONS, SHAPES, Clip, Thing

KNOWN = (*GLYPHS, *LETTERS)
"""What a thing is called by a head: its glyph or a code's letter; the code's digit has a head of its own."""

TOKENS = CELLS * CELLS
"""Visual tokens a grid."""
STATES: dict[str, tuple[str, ...]] = {
    **{f"colour_{order}": COLOURS for order in ("first", "last")},
    **{f"number_{order}": DIGITS for order in ("first", "last")},
    **{f"shape_{order}": SHAPES for order in ("first", "last")},
    **{f"icon_{order}": ICONS for order in ("first", "last")},
    **{f"letter_{order}": LETTERS for order in ("first", "last")},
    **{f"digit_{order}": DIGITS for order in ("first", "last")},
    "count": COUNTS,
    "motion": DIRECTIONS,
    **{name: KNOWN for name in ("thing_last", "thing_before", "now")},
    **{f"{name}_digit": DIGITS for name in ("thing_last", "thing_before", "now")},
    "corner_last": CORNERS,
}
"""What every visual slot is asked about the video so far; the class after the last word is "none yet"."""
FACTS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "corner": CORNERS,
    "before": KNOWN,
    "before_digit": DIGITS,
    "number": COUNTS,
    "after": KNOWN,
    "after_digit": DIGITS,
    **{f"colour_{side}": COLOURS for side in ("before", "after")},
    **{f"corner_{side}": CORNERS for side in ("before", "after")},
}
"""What every word for a thing, wherever a question holds one, is asked about that thing: its colour, its corner, the
thing before it, the how manieth it is, the thing after it, the colours and corners of those two; the class after the
last is "not shown" or "none"."""
PLACES: dict[str, tuple[str, ...]] = {"row": tuple("0123"), "column": tuple("0123")}
"""Where in its grid a visual slot is."""
OPTIONS: dict[str, tuple[str, ...]] = {"right": ("no", "yes")}
"""What the last word of every option is asked: whether that option answers the question."""


def called(glyph: str | None) -> tuple[int, int]:
    """Classes of `KNOWN` and of a code's digit; the last ones of what is none."""
    if glyph is None:
        return len(KNOWN), len(DIGITS)
    if glyph in CODES:
        return len(GLYPHS) + LETTERS.index(glyph[0]), DIGITS.index(glyph[1])
    return GLYPHS.index(glyph), len(DIGITS)


def _facts(things: Sequence[Thing], n: int) -> list[int]:
    """Classes of `FACTS` for one of a video's things; -100 where it has none of the classes."""

    def place(thing: Thing) -> int:
        where = corner_of(thing)
        return -100 if where is None else CORNERS.index(where)

    before, after = (things[m] if 0 <= m < len(things) else None for m in (n - 1, n + 1))
    return [
        COLOURS.index(things[n].colour),
        place(things[n]),
        *called(before.glyph if before else None),
        n if n < len(COUNTS) else -100,
        *called(after.glyph if after else None),
        *(COLOURS.index(thing.colour) if thing else len(COLOURS) for thing in (before, after)),
        *(place(thing) if thing else len(CORNERS) for thing in (before, after)),
    ]


def facts_by_name(clip: Clip) -> dict[tuple[str | None, str], list[int]]:
    """Classes of `FACTS` of every thing under its names: glyph alone (`None`) and with its colour.

    A glyph that comes more than once has -100 everywhere without its colour; what is not shown has no entry.
    """
    once, _ = split_by_name(clip.things)
    unknown = [-100] * len(FACTS)
    found: dict[tuple[str | None, str], list[int]] = {}
    for n, thing in enumerate(clip.things):
        facts = _facts(clip.things, n)
        found[None, thing.glyph] = facts if n in once else unknown
        found[thing.colour, thing.glyph] = unknown if (thing.colour, thing.glyph) in found else facts
    return found


def not_shown() -> list[int]:
    """Classes of `FACTS` of what is not shown."""
    return [len(words) for words in FACTS.values()]


def states_of(clip: Clip, labels: np.ndarray) -> np.ndarray:
    """Classes of `STATES` at every visual slot, counting what was shown up to that slot; `[16 grids, states]`.

    Parameters
    ----------
    clip : Clip
    labels : array
        `[grids, 5]`, the bank's, of the same seconds.
    """
    names = list(STATES)
    out = np.tile(np.array([len(STATES[name]) for name in names]), (clip.seconds * TOKENS, 1))
    if clip.marker:
        out[int(labels[0, 4]) :, names.index("motion")] = DIRECTIONS.index(clip.marker.direction)
    before = called(None)

    def put(rows: slice, name: str, classes: tuple[int, int]) -> None:
        out[rows, names.index(name)], out[rows, names.index(f"{name}_digit")] = classes

    for number, thing in enumerate(clip.things):
        here = thing.seen[0] * TOKENS + int(labels[thing.seen[0], 2])
        seen = [("colour", COLOURS.index(thing.colour))]
        if thing.glyph in CODES:
            seen += [("letter", LETTERS.index(thing.glyph[0])), ("digit", DIGITS.index(thing.glyph[1]))]
        else:
            groups = (("number", DIGITS), ("shape", SHAPES), ("icon", ICONS))
            seen += [(what, words.index(thing.glyph)) for what, words in groups if thing.glyph in words]
        for attribute, value in seen:
            first = names.index(f"{attribute}_first")
            if out[here, first] == len(STATES[names[first]]):
                out[here:, first] = value
            out[here:, names.index(f"{attribute}_last")] = value
        out[here:, names.index("count")] = number if number < len(COUNTS) else -100
        put(slice(here, None), "thing_last", called(thing.glyph))
        put(slice(here, None), "thing_before", before)
        where = corner_of(thing)
        out[here:, names.index("corner_last")] = -100 if where is None else CORNERS.index(where)
        for second in thing.seen:
            put(slice(second * TOKENS + int(labels[second, 2]), (second + 1) * TOKENS), "now", called(thing.glyph))
        before = called(thing.glyph)
    return out


def places_of(slots: int) -> Tensor:
    """Classes of `PLACES` for a row of visual slots, `[slots, 2]`."""
    cell = torch.arange(slots) % TOKENS
    return torch.stack([cell // CELLS, cell % CELLS], -1)
